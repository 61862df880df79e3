//! An execution in a container: the only file that knows both.
//!
//! Everything here blocks; one thread goes through it per execution.

use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abax_actors::{
    Actor, ActorMount, Chain, Claim, Clock, Finish, Json, MessageBody, Outcome, Phase, Phases,
    PinnedImage, Time, TraceParent, Usage,
};
use abax_runtime::Runtime;
use abax_runtime::cgroup::Limits;
use abax_runtime::container::{
    Container, Content, ExitStatus, HostUser, Isolation, Launcher, Mount, MountSource, Options,
    Provision, Stdio,
};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{Span, info_span};

use crate::Config;
use crate::image::{Images, PinError};
use crate::lease::Stop;
use crate::metrics;
use crate::output::Output;
use crate::results::{self, Results};
use crate::trace::TRACEPARENT;
use crate::trouble::is_of_host;
use crate::watched::Watched;

/// What containers are made of and with.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) runtime: Runtime,
    pub(crate) launcher: Launcher,
    pub(crate) images: Images,
}

/// One execution while it runs, as its thread and its task share it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) output: Output,
    pub(crate) results: Results,
    pub(crate) phases: Mutex<Phases>,
    /// The service's: its times are compared with those of other hosts.
    pub(crate) clock: Clock,
}

impl Live {
    fn reached(&self, phase: Phase) -> Time {
        let now = self.clock.now();
        self.phases.lock().expect("no holder of this lock panics").set(phase, now);
        now
    }
}

/// How it ended, and what has to be cleared away when that is stored.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) finish: Finish,
    /// True: nothing ran, or was ended by our own failure; the same may run later.
    pub(crate) may_pass: bool,
    /// True: this host failed, whatever was to run.
    pub(crate) of_host: bool,
    /// True: no host could have had the image in this moment, whatever the message.
    pub(crate) lacks_image: bool,
    pub(crate) container: Option<Container>,
}

impl Ended {
    fn without_container(outcome: Outcome, reason: String) -> Self {
        Self {
            finish: Finish::new(outcome, reason),
            may_pass: false,
            of_host: false,
            lacks_image: false,
            container: None,
        }
    }

    /// Stopped before there was a container.
    pub(crate) fn before_it_began() -> Self {
        Self::without_container(
            Outcome::Cancelled,
            "halted before its container started".to_owned(),
        )
    }

    fn could_not_start(error: &(dyn std::error::Error + 'static)) -> Self {
        let ended = Self::without_container(Outcome::CouldNotStart, Chain(error).to_string());
        let of_host = is_of_host(error);
        Self { may_pass: of_host, of_host, ..ended }
    }
}

impl Sandbox {
    /// Runs `claim` to its end, whatever that is.
    pub(crate) fn run(
        &self,
        config: &Config,
        claim: &Claim,
        live: &Live,
        stop: &Stop,
        wake: &PipeReader,
        pin: impl FnOnce(PinnedImage) -> Result<PinnedImage, PinError>,
    ) -> Ended {
        let image = info_span!("image", image.reference = %claim.image.reference)
            .in_scope(|| self.images.of_revision(&self.runtime, &claim.image, pin));
        let image = match image {
            Ok(image) => image,
            Err(error) => {
                let (may_pass, lacks_image) = (error.is_transient(), error.is_of_registry());
                return Ended { may_pass, lacks_image, ..Ended::could_not_start(&error) };
            }
        };
        live.reached(Phase::ImageReady);
        if !stop.begin() {
            return Ended::before_it_began();
        }

        let ready = Instant::now();
        // One pipe for both streams: what is written first is read first.
        let (stdio, mut output) = match stdio() {
            Ok(pair) => pair,
            Err(error) => return Ended::could_not_start(&error),
        };
        let results = match Results::socket() {
            Ok(socket) => socket,
            Err(error) => return Ended::could_not_start(&SocketError(error)),
        };
        let limits = limits(config, &claim.actor);
        let now = live.clock.now();
        let options = self.options(config, claim, limits, now, &results);
        if let Some((_, token)) = options.env.iter().find(|(name, _)| name == ACCESS_TOKEN) {
            live.output.hide(token);
        }
        let container = info_span!("create")
            .in_scope(|| Container::create(&self.runtime, &self.launcher, &image, options, stdio));
        let container = match container {
            Ok(container) => container,
            Err(error) => return Ended::could_not_start(&error),
        };
        live.reached(Phase::Created);
        if let Err(error) = info_span!("start").in_scope(|| container.start()) {
            let mut ended = Ended::could_not_start(&error);
            ended.finish.exit_code = Some(i32::from(error.exit_code()));
            // So that we know whether it ended with its launcher.
            let _ = container.wait();
            ended.may_pass |= container.is_abandoned();
            ended.container = Some(container);
            return ended;
        }
        let started = live.reached(Phase::Started);
        let begun = Instant::now();
        metrics::container_started(begun - ready);

        let running = info_span!("run").entered();
        let watched = Watched {
            live,
            container: &container,
            stop,
            wake,
            results: &results,
            grace: config.stop_grace,
        };
        let stopped = watched.attend(time_limit(config, &claim.actor), &mut output, begun);
        let exit = container.wait();
        let finished = live.reached(Phase::Exited);
        live.results.read(&results, &live.output, true);
        drain(live, &mut output);
        live.output.end();
        drop(running);
        if container.is_abandoned() && stopped.is_none() {
            let reason = "the launcher ended, and the container with it".to_owned();
            let ended = Ended::without_container(Outcome::Lost, reason);
            return Ended { may_pass: true, container: Some(container), ..ended };
        }
        let runtime = begun.elapsed();
        let used = container.usage();
        let mut finish = match exit {
            Err(error) => Finish::new(
                Outcome::CouldNotStart,
                format!("lost sight of the container: {}", Chain(&error)),
            ),
            Ok(exit) => {
                let code = exit.exit_code();
                let (outcome, reason) = match stopped {
                    Some(stopped) => (stopped.outcome(), stopped.reason(&container)),
                    None if exit.out_of_memory => {
                        (Outcome::OutOfMemory, out_of_memory(limits, used.peak_memory_bytes))
                    }
                    None if code == 0 => (Outcome::Succeeded, String::new()),
                    None => (Outcome::Failed, failed(&exit.status)),
                };
                let mut finish = Finish::new(outcome, reason.clone());
                finish.exit_code = Some(code);
                finish.final_state =
                    Some(final_state(code, exit.out_of_memory, &reason, started, finished));
                finish
            }
        };
        finish.usage = Usage {
            cpu_ns: u64::try_from(used.cpu.as_nanos()).unwrap_or(u64::MAX),
            io_bytes: used.io_read_bytes.saturating_add(used.io_write_bytes),
            runtime,
            peak_memory_bytes: used.peak_memory_bytes,
        };
        Ended {
            finish,
            may_pass: false,
            of_host: false,
            lacks_image: false,
            container: Some(container),
        }
    }

    fn options(
        &self,
        config: &Config,
        claim: &Claim,
        limits: Limits,
        now: Time,
        results: &Arc<UnixDatagram>,
    ) -> Options {
        let mut env = claim.environment.clone();
        if claim.actor.token.wanted()
            && let Some(tokens) = &config.access_tokens
            && let Some(token) = tokens.mint(claim, now)
        {
            env.retain(|(name, _)| name != ACCESS_TOKEN);
            env.push((ACCESS_TOKEN.to_owned(), token));
        }
        let trace = TraceParent::of(&Span::current()).or_else(|| claim.message.trace.clone());
        if let Some(trace) = trace {
            env.retain(|(name, _)| name != TRACEPARENT);
            env.push((TRACEPARENT.to_owned(), trace.to_string()));
        }
        let actor = &claim.actor;
        let user = claim.user().and_then(|(uid, gid)| HostUser::new(uid, gid).ok());
        Options {
            env,
            user: user.map(|HostUser { uid, gid }| format!("{uid}:{gid}")),
            host_user: user,
            mounts: actor.mounts.iter().map(mount).collect(),
            provisions: provisions(claim, results),
            network: config.network.clone(),
            limits,
            isolation: match actor.privileged {
                true => Isolation::Privileged,
                false => Isolation::Unprivileged,
            },
            keep: false,
            ca_bundle: self.runtime.config().ca_bundle.clone(),
            ..Options::default()
        }
    }
}

const ACCESS_TOKEN: &str = "_abaco_access_token";
/// Where containers find a message of bytes, as Abaco has it.
const BINARY_MESSAGE: &str = "/_abaco_binary_data";

fn mount(mount: &ActorMount) -> Mount {
    Mount {
        source: MountSource::BindWithoutLinks(mount.host_path.clone().into()),
        target: mount.container_path.clone().into(),
        read_only: mount.is_read_only(),
    }
}

/// The socket for results, and the message where it is of bytes.
fn provisions(claim: &Claim, results: &Arc<UnixDatagram>) -> Vec<Provision> {
    let socket = Content::Datagrams(Arc::clone(results));
    let mut provisions = vec![Provision { target: results::SOCKET.into(), content: socket }];
    if let MessageBody::Binary(bytes) = &claim.message.body {
        let content = Content::File(Arc::clone(bytes));
        provisions.push(Provision { target: BINARY_MESSAGE.into(), content });
    }
    provisions
}

/// The actor's limits over ours.
fn limits(config: &Config, actor: &Actor) -> Limits {
    Limits {
        memory_bytes: actor.memory_limit_bytes().or(config.limits.memory_bytes),
        nano_cpus: actor.max_cpus.or(config.limits.nano_cpus),
        ..config.limits
    }
}

/// The actor's limit on time, where it is no longer than ours.
fn time_limit(config: &Config, actor: &Actor) -> Option<Duration> {
    let wanted = actor.max_run_time.map(|seconds| Duration::from_secs(seconds.into()));
    [wanted, config.time_limit].into_iter().flatten().min()
}

/// No input; one pipe for output and errors.
fn stdio() -> Result<(Stdio, PipeReader), PipeError> {
    let (reader, writer) = io::pipe().map_err(PipeError)?;
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK)
        .map_err(|errno| PipeError(errno.into()))?;
    let stderr = writer.try_clone().map_err(PipeError)?;
    let stdin = std::fs::File::open("/dev/null").map_err(PipeError)?;
    let stdio = Stdio::Fds { stdin: stdin.into(), stdout: writer.into(), stderr: stderr.into() };
    Ok((stdio, reader))
}

#[derive(Debug, thiserror::Error)]
#[error("could not open a pipe for the output")]
struct PipeError(#[source] io::Error);

#[derive(Debug, thiserror::Error)]
#[error("could not open a socket for the results")]
struct SocketError(#[source] io::Error);

/// What the container wrote before it ended and nobody has read yet.
fn drain(live: &Live, output: &mut PipeReader) {
    while read(live, output) {
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(poll(&mut fds, Some(&at_once)), Ok(n) if n > 0) {
            return;
        }
    }
}

/// One read; false at the end of the output.
pub(crate) fn read(live: &Live, output: &mut PipeReader) -> bool {
    let mut buffer = [0_u8; 64 * 1024];
    match io::Read::read(output, &mut buffer) {
        Ok(0) => false,
        Ok(n) => {
            let mut phases = live.phases.lock().expect("no holder of this lock panics");
            if phases.at(Phase::FirstOutput).is_none() {
                phases.set(Phase::FirstOutput, live.clock.now());
            }
            drop(phases);
            live.output.push(&buffer[..n]);
            true
        }
        Err(error) => {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

fn failed(status: &ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("the command ended with exit code {code}"),
        ExitStatus::Signaled(signal) => format!("the command was killed by signal {signal}"),
    }
}

/// The sentence with the way out in it.
fn out_of_memory(limits: Limits, peak_bytes: Option<u64>) -> String {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    match limits.memory_bytes {
        Some(limit) => format!(
            "killed: used {} of {}; raise memLimit",
            mebibytes(peak_bytes.unwrap_or(limit).min(limit)),
            mebibytes(limit)
        ),
        None => "killed: the machine ran out of memory; set memLimit, or use less".to_owned(),
    }
}

/// The container's last state, with docker's names.
fn final_state(code: i32, out_of_memory: bool, error: &str, started: Time, finished: Time) -> Json {
    let state = serde_json::json!({
        "Status": "exited",
        "Running": false,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": out_of_memory,
        "Dead": false,
        "Pid": 0,
        "ExitCode": code,
        "Error": error,
        "StartedAt": started.iso_millis(),
        "FinishedAt": finished.iso_millis(),
    });
    Json::parse(&state.to_string()).expect("serde_json writes JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_says_what_to_raise() {
        let limits = Limits { memory_bytes: Some(512 << 20), ..Limits::default() };
        assert_eq!(
            out_of_memory(limits, Some(512 << 20)),
            "killed: used 512 MiB of 512 MiB; raise memLimit"
        );
    }
}
