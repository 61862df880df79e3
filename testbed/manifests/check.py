#!/usr/bin/env python3
"""Checks deploy/ without a cluster: every manifest against the schemas of the
Kubernetes API, what kustomize would make of the directories, and that names,
ports, privileges and deadlines which stand in more than one place agree.

    check.py REPOSITORY
"""

import copy
import json
import pathlib
import re
import sys
import tomllib

import kubernetes_validate
import yaml

# The oldest that knows all fields (appArmorProfile), and the newest.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# What the API server does not know by itself.
CUSTOM = {"ScaledObject"}

problems = []


def check(holds, message):
    if not holds:
        problems.append(message)


def load(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def identity(resource):
    return (resource["kind"], resource["metadata"]["name"])


class Kustomization:
    """What `kubectl kustomize DIRECTORY` would print, as far as we use it."""

    def __init__(self, directory, resources=None):
        self.directory = directory
        self.resources = dict(resources or {})
        path = directory / "kustomization.yaml"
        self.spec = load(path)[0]
        known = {"apiVersion", "kind", "namespace", "labels", "resources", "components", "patches", "images"}
        check(set(self.spec) <= known, f"{path}: this check does not know {set(self.spec) - known}")
        used = {path.name}
        for name in self.spec.get("resources", []):
            used |= self.add(name)
        for name in self.spec.get("components", []):
            check((directory / name / "kustomization.yaml").exists(), f"{path}: {name} is not there")
            component = Kustomization((directory / name).resolve(), self.resources)
            check(component.spec["kind"] == "Component", f"{path}: {name} is no component")
            self.resources = component.resources
        for patch in self.spec.get("patches", []):
            used |= self.patch(patch)
        there = {file.name for file in directory.glob("*.yaml")}
        check(used == there, f"{directory}: files that nobody lists, or that are not there: {used ^ there}")
        for labels in self.spec.get("labels", []):
            self.label(labels)
        for image in self.spec.get("images", []):
            self.rename(image)
        if namespace := self.spec.get("namespace"):
            for resource in self.resources.values():
                if resource["kind"] != "Namespace":
                    resource["metadata"]["namespace"] = namespace

    def add(self, name):
        path = self.directory / name
        if path.is_dir():
            for key, resource in Kustomization(path.resolve()).resources.items():
                self.put(key, resource, name)
            return set()
        check(path.exists(), f"{path} is listed and not there")
        for resource in load(path) if path.exists() else []:
            self.put(identity(resource), resource, name)
        return {name}

    def put(self, key, resource, name):
        check(key not in self.resources, f"{self.directory / name}: {key} is there twice")
        self.resources[key] = copy.deepcopy(resource)

    def patch(self, patch):
        if "path" in patch:
            for part in load(self.directory / patch["path"]):
                key = identity(part)
                check(key in self.resources, f"{self.directory}: nothing to patch for {key}")
                if key in self.resources:
                    merge(self.resources[key], part)
            return {patch["path"]}
        key = (patch["target"]["kind"], patch["target"]["name"])
        check(key in self.resources, f"{self.directory}: nothing to patch for {key}")
        for operation in yaml.safe_load(patch["patch"]):
            *parents, last = operation["path"].strip("/").split("/")
            at = self.resources.get(key, {})
            for parent in parents:
                at = at[parent]
            check(operation["op"] == "remove" and last in at, f"{self.directory}: cannot {operation}")
            at.pop(last, None)
        return set()

    def label(self, labels):
        for resource in self.resources.values():
            resource["metadata"].setdefault("labels", {}).update(labels["pairs"])
            template = resource.get("spec", {}).get("template")
            if template:
                template["metadata"].setdefault("labels", {}).update(labels["pairs"])
            if labels.get("includeSelectors"):
                for selector in selectors(resource):
                    selector.update(labels["pairs"])

    def rename(self, image):
        found = False
        for container in containers(self.resources.values()):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
                found = True
        check(found, f"{self.directory}: no container has the image {image['name']}")


def merge(target, patch):
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def selectors(resource):
    spec = resource.get("spec", {})
    if resource["kind"] == "Service":
        yield spec["selector"]
    elif resource["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        yield spec["selector"]["matchLabels"]
    elif resource["kind"] == "NetworkPolicy":
        yield spec["podSelector"]["matchLabels"]
        for rule in spec.get("ingress", []) + spec.get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                if "podSelector" in peer:
                    yield peer["podSelector"]["matchLabels"]


def workloads(resources):
    return [resource for resource in resources if "template" in resource.get("spec", {})]


def containers(resources):
    for workload in workloads(resources):
        yield from workload["spec"]["template"]["spec"]["containers"]


def check_schemas(where, resources):
    for resource in resources:
        if resource["kind"] in CUSTOM:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                at = "/".join(map(str, error.path))
                problems.append(f"{where}: {identity(resource)} at {at}, Kubernetes {version}: {error.message}")


def check_references(where, resources):
    """Whatever names something else names what is there."""
    pods = {identity(w): w["spec"]["template"] for w in workloads(resources.values())}
    for key, resource in resources.items():
        for selector in selectors(resource):
            chosen = [pod for pod in pods.values() if selector.items() <= pod["metadata"]["labels"].items()]
            check(len(chosen) == 1, f"{where}: {key} selects {len(chosen)} workloads with {selector}")
        spec = resource.get("spec", {})
        if target := spec.get("scaleTargetRef"):
            scaled = resources.get((target["kind"], target["name"]))
            check(scaled, f"{where}: {key} scales {target}, which is not there")
            check("replicas" not in (scaled or {}).get("spec", {}), f"{where}: {key} and its target both set replicas")
        if resource["kind"] == "StatefulSet":
            check(("Service", spec["serviceName"]) in resources, f"{where}: {key} has no service {spec['serviceName']}")
        if resource["kind"] == "Service":
            chosen = [p for p in pods.values() if spec["selector"].items() <= p["metadata"]["labels"].items()]
            ports = {port["name"] for pod in chosen for c in pod["spec"]["containers"] for port in c.get("ports", [])}
            for port in spec.get("ports", []):
                check(port["targetPort"] in ports, f"{where}: {key}: no container has the port {port['targetPort']}")
        if resource["kind"] == "Ingress":
            for path in (path for rule in spec["rules"] for path in rule["http"]["paths"]):
                service = resources.get(("Service", path["backend"]["service"]["name"]))
                names = {port["name"] for port in service["spec"]["ports"]} if service else set()
                check(path["backend"]["service"]["port"]["name"] in names, f"{where}: {key} leads nowhere")
    for key, pod in pods.items():
        spec = pod["spec"]
        check(("ServiceAccount", spec["serviceAccountName"]) in resources, f"{where}: {key}: no such service account")
        claims = resources[key]["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | {c["metadata"]["name"] for c in claims}
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                check(("ConfigMap", volume["configMap"]["name"]) in resources, f"{where}: {key}: {volume}")
            if "secret" in volume and any(kind == "Secret" for kind, _ in resources):
                check(("Secret", volume["secret"]["secretName"]) in resources, f"{where}: {key}: {volume}")
        for container in spec["containers"]:
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            check(mounts <= volumes, f"{where}: {key}: mounts without volume: {mounts - volumes}")
            check("memory" in container["resources"]["limits"], f"{where}: {key} has no memory limit")
            check({"cpu", "memory"} <= set(container["resources"]["requests"]), f"{where}: {key} has no requests")


def settings_of(text):
    """`section.name` of each setting in a TOML text, with its value."""
    found = {}
    for section, value in tomllib.loads(text).items():
        if isinstance(value, dict):
            found |= {f"{section}.{name}": setting for name, setting in value.items()}
        else:
            found[section] = value
    return found


def check_settings(where, settings, documented):
    unknown = set(settings) - documented
    check(not unknown, f"{where}: no such settings: {sorted(unknown)}")


def check_deadlines(where, resources):
    config = resources[("ConfigMap", "abax")]["data"]["abax.toml"]
    settings = settings_of(config)
    for key, name, pause in (
        (("Deployment", "abax-api"), "api.drain_seconds", 10),
        (("StatefulSet", "abax-worker"), "worker.drain_seconds", 0),
    ):
        default = 20 if name.startswith("api") else settings.get("service.drain_seconds", 30)
        grace = resources[key]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        check(grace > settings.get(name, default) + pause, f"{where}: {key} is killed before {name} is over")


def size(text):
    """Bytes of `1g` or `9Gi`; both mean powers of two."""
    number, unit = re.fullmatch(r"(\d+)([mg])i?", text.lower()).groups()
    return int(number) << {"m": 20, "g": 30}[unit]


def check_sizes(where, resources):
    """A host's slots fit its memory, and the scaler knows how many they are."""
    settings = settings_of(resources[("ConfigMap", "abax")]["data"]["abax.toml"])
    worker = resources[("StatefulSet", "abax-worker")]["spec"]["template"]["spec"]["containers"][0]
    slots, memory = settings["worker.slots"], size(settings["worker.memory"])
    limit = size(worker["resources"]["limits"]["memory"])
    check(slots * size(settings["service.memory"]) <= memory, f"{where}: {slots} slots need more than worker.memory")
    check(memory < limit, f"{where}: worker.memory leaves nothing of the pod's {limit} bytes to the worker")
    for resource in resources.values():
        if resource["kind"] == "ScaledObject":
            for trigger in resource["spec"]["triggers"]:
                check(trigger["metadata"]["threshold"] == str(slots), f"{where}: the scaler does not count {slots} slots")


def check_restricted(where, resources):
    """Nobody writes into its image; whatever is no worker has no privilege at all."""
    for workload in workloads(resources.values()):
        pod = workload["spec"]["template"]["spec"]
        check(pod["automountServiceAccountToken"] is False, f"{where}: {identity(workload)} gets a token of the cluster")
        for container in pod["containers"]:
            context = container["securityContext"]
            check(context["readOnlyRootFilesystem"], f"{where}: {identity(workload)} can change its own program")
            if container["name"] == "worker":
                continue
            holds = pod["securityContext"]["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
            check(holds and context["capabilities"] == {"drop": ["ALL"]}, f"{where}: {identity(workload)} may do more than it needs")


def check_secrets(where, resources):
    """The files that the settings name come with the secret, where it is an example."""
    secret = resources.get(("Secret", "abax"))
    settings = settings_of(resources[("ConfigMap", "abax")]["data"]["abax.toml"])
    for name, value in settings.items():
        if name.endswith("_file") and secret:
            path = pathlib.PurePosixPath(value)
            check(path.name in secret["stringData"], f"{where}: {name} is {value}, which the secret does not have")


def check_privileges(repository, worker):
    """One list of capabilities, in all places that have it."""
    context = worker["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    kubernetes = set(context["capabilities"]["add"])
    compose = yaml.safe_load((repository / "docker-compose.yml").read_text())
    script = (repository / "deploy/worker.sh").read_text()
    said = set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)?\b", script.partition("pivot_root")[0])) & ALL_CAPABILITIES
    for name in ("worker1", "worker2"):
        service = compose["services"][name]
        check(service["cap_drop"] == ["ALL"], f"docker-compose.yml: {name} keeps capabilities")
        check(set(service["cap_add"]) == kubernetes, f"{name} and Kubernetes differ: {set(service['cap_add']) ^ kubernetes}")
    check(said == kubernetes, f"deploy/worker.sh and the manifests differ: {said ^ kubernetes}")
    allowed = set()
    for rule in json.loads((repository / "deploy/compose/worker-seccomp.json").read_text())["syscalls"]:
        allowed |= set(rule["names"])
    executions = json.loads((repository / "runtime/src/security/seccomp/docker-default.json").read_text())
    needed = {call for calls in executions["allow"].values() for call in calls.split()}
    check(needed <= allowed, f"worker-seccomp.json refuses what executions may call: {sorted(needed - allowed)}")


ALL_CAPABILITIES = set(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE "
    "NET_ADMIN NET_RAW SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME MKNOD AUDIT_WRITE SETFCAP SYSLOG BPF PERFMON".split()
)


def check_compose(repository, documented):
    compose = yaml.safe_load((repository / "docker-compose.yml").read_text())
    settings = settings_of((repository / "deploy/compose/abax.toml").read_text())
    check_settings("deploy/compose/abax.toml", settings, documented)
    for service, drain in (("api1", settings.get("api.drain_seconds", 20)), ("worker1", settings["worker.drain_seconds"])):
        grace = int(compose["services"][service]["stop_grace_period"].rstrip("s"))
        check(grace > drain, f"docker-compose.yml: {service} is killed before it is drained")
    for name, value in settings.items():
        if name.endswith("_file"):
            check(pathlib.PurePosixPath(value).name in compose["secrets"], f"deploy/compose/abax.toml: {name}")


def main():
    repository = pathlib.Path(sys.argv[1])
    table = (repository / "docs/configuration.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE))
    kubernetes = repository / "deploy/kubernetes"
    # Every directory but components, which are only seen from an overlay.
    directories = sorted(path.parent for path in kubernetes.glob("**/kustomization.yaml"))
    seen = 0
    for directory in directories:
        if directory.parent.name == "components":
            continue
        where = str(directory.relative_to(repository))
        resources = Kustomization(directory).resources
        seen += len(resources)
        check_schemas(where, resources.values())
        check_references(where, resources)
        check_settings(where, settings_of(resources[("ConfigMap", "abax")]["data"]["abax.toml"]), documented)
        check_deadlines(where, resources)
        check_sizes(where, resources)
        check_restricted(where, resources)
        check_secrets(where, resources)
        check_privileges(repository, resources[("StatefulSet", "abax-worker")])
    check_compose(repository, documented)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{seen} resources are as Kubernetes {' and '.join(VERSIONS)} want them")


main()
