//! Seccomp profiles, and the programs that they compile to.
//!
//! The default profile is Docker's: the facts in `seccomp/docker-default.json` were read from
//! moby's `profiles/seccomp/default.json` (Apache-2.0). Profiles in Docker's own format and the
//! seccomp section of an OCI runtime spec are read as well.
//!
//! A program is one binary search over ranges of system call numbers. The kernel walks it once
//! per number when it is installed, to learn which calls are allowed whatever their arguments are
//! (Linux 5.11); those then cost nothing. So what matters is that compiling and installing are
//! cheap, and a search of ten steps over some 150 instructions beats a chain of 400 comparisons.
//!
//! Three rules beside the profile's own:
//!
//! * 32-bit programs of the same family (i386 on x86-64, arm on arm64) follow the profile with
//!   their own numbers, as with Docker; any other architecture is killed. x32 numbers get the
//!   default action.
//! * Numbers above all that the profile names answer `ENOSYS` in place of the default error, as
//!   runc does: a C library newer than the profile then falls back to older calls.
//! * Where several rules name one call, those with conditions are tried in order before one without.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use caps::Capability;
use serde::Deserialize;

use crate::sys;

/// A program for seccomp(2): one instruction in each number, as the kernel lays out `struct sock_filter`.
pub type Program = Vec<u64>;

/// A machine that programs can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86, and i386 programs on it.
    X86_64,
    /// 64-bit ARM, and 32-bit ARM programs on it.
    Aarch64,
}

impl Architecture {
    /// What this program was built for; `None` where no filter can be made for it.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The system call tables that programs on this machine may use, its own first.
    fn tables(self) -> [Table; 2] {
        match self {
            Self::X86_64 => [
                Table {
                    name: "x86_64",
                    docker_name: "amd64",
                    audit: 0xc000_003e,
                    number: |name| unsigned(syscalls::x86_64::Sysno::from_str(name).ok()?.id()),
                },
                Table {
                    name: "x86",
                    docker_name: "x86",
                    audit: 0x4000_0003,
                    number: |name| unsigned(syscalls::x86::Sysno::from_str(name).ok()?.id()),
                },
            ],
            Self::Aarch64 => [
                Table {
                    name: "aarch64",
                    docker_name: "arm64",
                    audit: 0xc000_00b7,
                    number: |name| unsigned(syscalls::aarch64::Sysno::from_str(name).ok()?.id()),
                },
                Table {
                    name: "arm",
                    docker_name: "arm",
                    audit: 0x4000_0028,
                    number: |name| unsigned(syscalls::arm::Sysno::from_str(name).ok()?.id()),
                },
            ],
        }
    }
}

/// The numbers of one architecture.
struct Table {
    name: &'static str,
    docker_name: &'static str,
    /// `AUDIT_ARCH_*`, linux/audit.h.
    audit: u32,
    /// The number of a call, `None` where this architecture does not have it.
    number: fn(&str) -> Option<u32>,
}

/// Numbers are signed in the tables and unsigned in a filter.
fn unsigned(number: i32) -> Option<u32> {
    u32::try_from(number).ok()
}

/// The first x32 number, `__X32_SYSCALL_BIT`; no architecture of ours has numbers of its own there.
const X32: u32 = 0x4000_0000;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Log,
    Errno(u16),
    Trap,
    Trace(u16),
    KillThread,
    KillProcess,
}

impl Action {
    /// `SECCOMP_RET_*`, seccomp(2).
    fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trap => 0x0003_0000,
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }
}

/// A comparison of one argument, unsigned and 64 bits wide.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// 0 to 5.
    argument: u8,
    comparison: Comparison,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    MaskedEqual {
        mask: u64,
        value: u64,
    },
    /// Any of these; numbers below 2³².
    OneOf(Vec<u32>),
}

/// Some calls, and what happens to them where all conditions hold.
#[derive(Debug, Clone)]
struct Rule {
    names: Vec<String>,
    action: Action,
    conditions: Vec<Condition>,
    includes: Scope,
    excludes: Scope,
}

/// For which containers and machines a rule is meant; empty is for all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Which system calls a container may make.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Tells profiles apart in the cache: it never changes once made, so clones share it.
    id: u64,
    default: Action,
    rules: Vec<Rule>,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ProfileError {
    #[error("the seccomp profile is not in Docker's format")]
    Format { source: serde_json::Error },
    #[error("the seccomp action {action} is not supported")]
    Action { action: String },
    #[error("the seccomp comparison {operator} is not known")]
    Operator { operator: String },
    #[error("{errno} is no error number that a system call can return")]
    Errno { errno: u32 },
    #[error("a system call has six arguments, numbered from 0: there is no argument {index}")]
    Argument { index: u64 },
}

/// Why a profile cannot become a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum CompileError {
    #[error("the rules for one system call compare too many values")]
    TooManyConditions,
    #[error("the seccomp program would have {instructions} instructions; the kernel takes 4096")]
    TooLong { instructions: usize },
}

impl Profile {
    /// Docker's default profile.
    pub fn docker_default() -> &'static Self {
        static PROFILE: OnceLock<Profile> = OnceLock::new();
        PROFILE.get_or_init(|| {
            let facts: DockerDefault =
                serde_json::from_str(include_str!("seccomp/docker-default.json"))
                    .expect("a test reads this file");
            facts.into_profile()
        })
    }

    /// Reads a profile as `docker run --security-opt seccomp=FILE` takes it, or the `seccomp`
    /// section of an OCI `config.json`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]: not such a file, or it asks for `SCMP_ACT_NOTIFY`, which needs an agent.
    pub fn from_json(json: &[u8]) -> Result<Self, ProfileError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|source| ProfileError::Format { source })?;
        document.into_profile()
    }

    fn new(default: Action, rules: Vec<Rule>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), default, rules }
    }
}

/// The seccomp section of an OCI runtime spec.
impl TryFrom<&oci_spec::runtime::LinuxSeccomp> for Profile {
    type Error = ProfileError;

    fn try_from(section: &oci_spec::runtime::LinuxSeccomp) -> Result<Self, ProfileError> {
        let json = serde_json::to_vec(section).map_err(|source| ProfileError::Format { source })?;
        Self::from_json(&json)
    }
}

/// Compiles `profile` for a container with these capabilities (its bounding set).
///
/// The programs are to be installed in order. Each combination is compiled once per process.
///
/// # Errors
///
/// [`CompileError`]: the profile is too long or too deep for the kernel; never Docker's default one.
pub fn compile(
    profile: &Profile,
    capabilities: &[Capability],
    architecture: Architecture,
) -> Result<Vec<Program>, CompileError> {
    type Key = (u64, u64, Architecture);
    static COMPILED: Mutex<Option<HashMap<Key, Program>>> = Mutex::new(None);

    let set = capabilities.iter().fold(0, |set, capability| set | capability.bitmask());
    let key = (profile.id, set, architecture);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    if let Some(program) = compiled.get(&key) {
        return Ok(vec![program.clone()]);
    }
    let program = program(profile, set, architecture)?;
    compiled.insert(key, program.clone());
    Ok(vec![program])
}

/// Restricts the calling thread, and all that it starts, for good.
///
/// # Errors
///
/// `EACCES`: the thread has neither `CAP_SYS_ADMIN` nor no_new_privs. `EINVAL`: not a program of ours.
pub fn install(programs: &[Program]) -> io::Result<()> {
    programs.iter().try_for_each(|program| sys::install_seccomp(program))
}

// The data file of the default profile.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DockerDefault {
    default_errno: u16,
    /// Topic → names.
    allow: BTreeMap<String, String>,
    /// Architecture → names.
    allow_on: BTreeMap<String, String>,
    /// Name → values of its first argument.
    allow_first_argument: BTreeMap<String, Vec<u32>>,
    /// Capability → names.
    allow_with_capability: BTreeMap<String, String>,
    without_sys_admin: WithoutSysAdmin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithoutSysAdmin {
    /// Flags of clone(2) that make namespaces.
    clone_refused_flags: u64,
    /// What clone3(2) answers: its flags are in memory, where no filter can look.
    clone3_errno: u16,
}

impl DockerDefault {
    fn into_profile(self) -> Profile {
        let rule = |names: &str, includes: Scope| Rule {
            names: names.split_whitespace().map(str::to_owned).collect(),
            action: Action::Allow,
            conditions: Vec::new(),
            includes,
            excludes: Scope::default(),
        };
        let mut rules = Vec::new();
        for names in self.allow.values() {
            rules.push(rule(names, Scope::default()));
        }
        for (architecture, names) in &self.allow_on {
            let arches = vec![architecture.clone()];
            rules.push(rule(names, Scope { arches, ..Scope::default() }));
        }
        for (name, values) in self.allow_first_argument {
            let conditions = vec![Condition { argument: 0, comparison: Comparison::OneOf(values) }];
            rules.push(Rule { conditions, ..rule(&name, Scope::default()) });
        }
        for (capability, names) in &self.allow_with_capability {
            let caps = vec![capability.clone()];
            rules.push(rule(names, Scope { caps, ..Scope::default() }));
        }
        let sys_admin = Scope { caps: vec!["CAP_SYS_ADMIN".to_owned()], ..Scope::default() };
        let no_namespaces =
            Comparison::MaskedEqual { mask: self.without_sys_admin.clone_refused_flags, value: 0 };
        rules.push(Rule {
            conditions: vec![Condition { argument: 0, comparison: no_namespaces }],
            excludes: sys_admin.clone(),
            ..rule("clone", Scope::default())
        });
        rules.push(Rule {
            action: Action::Errno(self.without_sys_admin.clone3_errno),
            excludes: sys_admin,
            ..rule("clone3", Scope::default())
        });
        Profile::new(Action::Errno(self.default_errno), rules)
    }
}

// Docker's format, of which the OCI section is a part.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Option<Vec<DocumentRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentRule {
    #[serde(default)]
    names: Vec<String>,
    /// The one name of rules of Docker before 1.13.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<DocumentArgument>>,
    #[serde(default)]
    includes: Scope,
    #[serde(default)]
    excludes: Scope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentArgument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: Option<u64>,
    op: String,
}

impl Document {
    fn into_profile(self) -> Result<Profile, ProfileError> {
        let default = parse_action(&self.default_action, self.default_errno_ret)?;
        let mut rules = Vec::new();
        for rule in self.syscalls.unwrap_or_default() {
            let action = parse_action(&rule.action, rule.errno_ret)?;
            let conditions = rule
                .args
                .unwrap_or_default()
                .into_iter()
                .map(parse_condition)
                .collect::<Result<Vec<_>, _>>()?;
            let mut names = rule.names;
            names.extend(rule.name);
            // Several conditions on one argument are alternatives, as runc reads them; conditions
            // on different arguments must hold together.
            let repeated = conditions.iter().enumerate().any(|(at, condition)| {
                conditions[..at].iter().any(|other| other.argument == condition.argument)
            });
            let alternatives = if repeated {
                conditions.into_iter().map(|one| vec![one]).collect()
            } else {
                vec![conditions]
            };
            for conditions in alternatives {
                let (names, includes) = (names.clone(), rule.includes.clone());
                rules.push(Rule {
                    names,
                    action,
                    conditions,
                    includes,
                    excludes: rule.excludes.clone(),
                });
            }
        }
        Ok(Profile::new(default, rules))
    }
}

fn parse_action(action: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    let number = |default: libc::c_int| {
        let errno = errno.unwrap_or(default.unsigned_abs());
        // MAX_ERRNO, linux/err.h.
        u16::try_from(errno)
            .ok()
            .filter(|errno| *errno <= 4095)
            .ok_or(ProfileError::Errno { errno })
    };
    Ok(match action {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(number(libc::EPERM)?),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number(libc::EPERM)?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        _ => return Err(ProfileError::Action { action: action.to_owned() }),
    })
}

fn parse_condition(argument: DocumentArgument) -> Result<Condition, ProfileError> {
    let DocumentArgument { index, value, value_two, op } = argument;
    let number = u8::try_from(index).ok().filter(|index| *index < 6);
    let number = number.ok_or(ProfileError::Argument { index })?;
    let comparison = match op.as_str() {
        "SCMP_CMP_EQ" => Comparison::Equal(value),
        "SCMP_CMP_NE" => Comparison::NotEqual(value),
        "SCMP_CMP_LT" => Comparison::Less(value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
        "SCMP_CMP_GT" => Comparison::Greater(value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
        "SCMP_CMP_MASKED_EQ" => {
            Comparison::MaskedEqual { mask: value, value: value_two.unwrap_or(0) }
        }
        _ => return Err(ProfileError::Operator { operator: op }),
    };
    Ok(Condition { argument: number, comparison })
}

impl Scope {
    /// True where nothing here speaks against the container and the machine.
    fn includes(&self, capabilities: u64, table: &Table, own: &Table) -> bool {
        self.caps.iter().all(|name| has(capabilities, name))
            && (self.arches.is_empty() || self.arches.iter().any(|name| is(name, table, own)))
            && self.min_kernel.as_deref().is_none_or(kernel_is_at_least)
    }

    /// True where anything here speaks against the container or the machine.
    fn excludes(&self, capabilities: u64, table: &Table, own: &Table) -> bool {
        self.caps.iter().any(|name| has(capabilities, name))
            || self.arches.iter().any(|name| is(name, table, own))
            || self.min_kernel.as_deref().is_some_and(kernel_is_at_least)
    }
}

/// Docker's scopes name the machine, ours the table.
fn is(name: &str, table: &Table, own: &Table) -> bool {
    name == table.name || name == own.docker_name || name == table.docker_name
}

fn has(capabilities: u64, name: &str) -> bool {
    Capability::from_str(name).is_ok_and(|capability| capabilities & capability.bitmask() != 0)
}

/// Compares `major.minor` with uname(2).
fn kernel_is_at_least(version: &str) -> bool {
    let parse = |text: &str| {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let uname = rustix::system::uname();
    let running = uname.release().to_str().ok().and_then(parse);
    running.zip(parse(version)).is_some_and(|(running, wanted)| running >= wanted)
}

// From rules to instructions.

/// One `struct sock_filter`. Jumps count the instructions to skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    fn load(offset: u32) -> Self {
        Self { code: 0x20, if_true: 0, if_false: 0, value: offset } // BPF_LD | BPF_W | BPF_ABS
    }

    fn and(mask: u32) -> Self {
        Self { code: 0x54, if_true: 0, if_false: 0, value: mask } // BPF_ALU | BPF_AND | BPF_K
    }

    fn give(action: Action) -> Self {
        Self { code: 0x06, if_true: 0, if_false: 0, value: action.code() } // BPF_RET | BPF_K
    }

    fn skip(count: u32) -> Self {
        Self { code: 0x05, if_true: 0, if_false: 0, value: count } // BPF_JMP | BPF_JA
    }

    fn encode(self) -> u64 {
        let [c0, c1] = self.code.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        u64::from_ne_bytes([c0, c1, self.if_true, self.if_false, v0, v1, v2, v3])
    }
}

const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is decided for one system call, or for a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    /// Tried in order.
    conditional: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Decision {
    fn plain(action: Action) -> Self {
        Self { conditional: Vec::new(), otherwise: action }
    }

    fn code(&self) -> Result<Vec<Instruction>, CompileError> {
        let mut code = Vec::new();
        for (conditions, action) in &self.conditional {
            code.extend(alternative(conditions, *action)?);
        }
        code.push(Instruction::give(self.otherwise));
        Ok(code)
    }
}

fn program(
    profile: &Profile,
    capabilities: u64,
    architecture: Architecture,
) -> Result<Program, CompileError> {
    let tables = architecture.tables();
    let mut code = vec![Instruction::load(ARCHITECTURE)];
    for table in &tables {
        let mut section = vec![Instruction::load(NUMBER)];
        section.extend(search(&decisions(profile, capabilities, table, &tables[0]))?);
        code.push(Instruction { code: JUMP_EQUAL, if_true: 1, if_false: 0, value: table.audit });
        code.push(Instruction::skip(section.len().try_into().unwrap_or(u32::MAX)));
        code.extend(section);
    }
    code.push(Instruction::give(Action::KillProcess));
    // BPF_MAXINSNS, linux/bpf_common.h.
    if code.len() > 4096 {
        return Err(CompileError::TooLong { instructions: code.len() });
    }
    Ok(code.into_iter().map(Instruction::encode).collect())
}

/// The decisions for all numbers of one table: each holds from its number up to the next one's.
fn decisions(
    profile: &Profile,
    capabilities: u64,
    table: &Table,
    own: &Table,
) -> Vec<(u32, Decision)> {
    let mut calls: BTreeMap<u32, Decision> = BTreeMap::new();
    let mut decided = std::collections::BTreeSet::new();
    for rule in &profile.rules {
        let applies = rule.includes.includes(capabilities, table, own)
            && !rule.excludes.excludes(capabilities, table, own);
        for number in rule.names.iter().filter_map(|name| (table.number)(name)) {
            // A rule that does not apply here still names the call: the profile knows it.
            let call = calls.entry(number).or_insert_with(|| Decision::plain(profile.default));
            if !applies {
                continue;
            }
            if !rule.conditions.is_empty() {
                call.conditional.push((rule.conditions.clone(), rule.action));
            } else if decided.insert(number) {
                call.otherwise = rule.action;
            }
        }
    }
    for call in calls.values_mut() {
        // Conditions that lead to the same end need no look at the arguments.
        let otherwise = call.otherwise;
        if call.conditional.iter().all(|(_, action)| *action == otherwise) {
            call.conditional.clear();
        }
    }

    let unknown = match profile.default {
        Action::Allow | Action::Log => profile.default,
        _ => Action::Errno(libc::ENOSYS.unsigned_abs().try_into().expect("38")),
    };
    let mut ranges: Vec<(u32, Decision)> = Vec::new();
    let mut push = |start: u32, decision: Decision| match ranges.last_mut() {
        Some((last, held)) if *last == start => *held = decision,
        Some((_, held)) if *held == decision => {}
        _ => ranges.push((start, decision)),
    };
    push(0, Decision::plain(profile.default));
    let mut next = 0;
    for (number, decision) in calls {
        if number > next {
            push(next, Decision::plain(profile.default));
        }
        push(number, decision);
        next = number + 1;
    }
    if next < X32 {
        push(next, Decision::plain(unknown));
        push(X32, Decision::plain(profile.default));
    }
    ranges
}

/// A binary search over the number in the accumulator; every way ends in a return.
fn search(ranges: &[(u32, Decision)]) -> Result<Vec<Instruction>, CompileError> {
    if let [(_, decision)] = ranges {
        return decision.code();
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let pivot = high[0].0;
    let (low, high) = (search(low)?, search(high)?);
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    let jump = |if_true, if_false| Instruction {
        code: JUMP_GREATER_OR_EQUAL,
        if_true,
        if_false,
        value: pivot,
    };
    match u8::try_from(low.len()) {
        Ok(distance) => code.push(jump(distance, 0)),
        // A conditional jump reaches 255 instructions, an unconditional one all.
        Err(_) => {
            code.push(jump(0, 1));
            code.push(Instruction::skip(low.len().try_into().unwrap_or(u32::MAX)));
        }
    }
    code.extend(low);
    code.extend(high);
    Ok(code)
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// To the next instruction.
    On,
    /// Past the rest of this condition: it holds.
    Holds,
    /// Past the rest of this alternative: it does not apply.
    Fails,
}

/// `action` where all `conditions` hold, else on to what follows.
fn alternative(conditions: &[Condition], action: Action) -> Result<Vec<Instruction>, CompileError> {
    let steps: Vec<_> = conditions.iter().map(Condition::steps).collect();
    let total = steps.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(total);
    for steps in steps {
        let end = code.len() + steps.len();
        for (mut instruction, if_true, if_false) in steps {
            let distance = |way: Way| {
                let skipped = match way {
                    Way::On => 0,
                    Way::Holds => end - code.len() - 1,
                    Way::Fails => total - code.len() - 1,
                };
                u8::try_from(skipped).map_err(|_| CompileError::TooManyConditions)
            };
            instruction.if_true = distance(if_true)?;
            instruction.if_false = distance(if_false)?;
            code.push(instruction);
        }
    }
    code.push(Instruction::give(action));
    Ok(code)
}

impl Condition {
    /// The instructions of one condition; falling off their end means that it holds.
    fn steps(&self) -> Vec<(Instruction, Way, Way)> {
        use Way::{Fails, Holds, On};
        let offset = ARGUMENTS + 8 * u32::from(self.argument);
        let (low_offset, high_offset) = if cfg!(target_endian = "little") {
            (offset, offset + 4)
        } else {
            (offset + 4, offset)
        };
        let (low, high) = (Instruction::load(low_offset), Instruction::load(high_offset));
        let plain = |instruction| (instruction, On, On);
        let jump = |code, value, if_true, if_false| {
            (Instruction { code, if_true: 0, if_false: 0, value }, if_true, if_false)
        };
        let halves = |value: u64| {
            let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("32 bits");
            (half(value), half(value >> 32))
        };
        // A wide comparison is decided by the high half unless that is equal.
        let ordered = |value: u64, code: u16, true_way: Way, false_way: Way| {
            let (value_low, value_high) = halves(value);
            vec![
                plain(high),
                jump(JUMP_GREATER, value_high, true_way, On),
                jump(JUMP_EQUAL, value_high, On, false_way),
                plain(low),
                jump(code, value_low, true_way, false_way),
            ]
        };
        match &self.comparison {
            Comparison::Equal(value) => {
                let (value_low, value_high) = halves(*value);
                vec![
                    plain(high),
                    jump(JUMP_EQUAL, value_high, On, Fails),
                    plain(low),
                    jump(JUMP_EQUAL, value_low, On, Fails),
                ]
            }
            Comparison::NotEqual(value) => {
                let (value_low, value_high) = halves(*value);
                vec![
                    plain(high),
                    jump(JUMP_EQUAL, value_high, On, Holds),
                    plain(low),
                    jump(JUMP_EQUAL, value_low, Fails, On),
                ]
            }
            Comparison::GreaterOrEqual(value) => {
                ordered(*value, JUMP_GREATER_OR_EQUAL, Holds, Fails)
            }
            Comparison::Greater(value) => ordered(*value, JUMP_GREATER, Holds, Fails),
            Comparison::Less(value) => ordered(*value, JUMP_GREATER_OR_EQUAL, Fails, Holds),
            Comparison::LessOrEqual(value) => ordered(*value, JUMP_GREATER, Fails, Holds),
            Comparison::MaskedEqual { mask, value } => {
                let ((mask_low, mask_high), (value_low, value_high)) =
                    (halves(*mask), halves(*value));
                vec![
                    plain(high),
                    plain(Instruction::and(mask_high)),
                    jump(JUMP_EQUAL, value_high, On, Fails),
                    plain(low),
                    plain(Instruction::and(mask_low)),
                    jump(JUMP_EQUAL, value_low, On, Fails),
                ]
            }
            Comparison::OneOf(values) => {
                let mut steps = vec![plain(high), jump(JUMP_EQUAL, 0, On, Fails), plain(low)];
                let last = values.len().saturating_sub(1);
                for (at, value) in values.iter().enumerate() {
                    steps.push(jump(
                        JUMP_EQUAL,
                        *value,
                        Holds,
                        if at == last { Fails } else { On },
                    ));
                }
                steps
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would: the action's code.
    fn run(program: &Program, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(audit.to_ne_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let bytes = program[at].to_ne_bytes();
            let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
            let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            let jump = |holds: bool| usize::from(if holds { bytes[2] } else { bytes[3] });
            match code {
                0x20 => {
                    let offset = value as usize;
                    accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                0x54 => accumulator &= value,
                0x05 => at += value as usize,
                JUMP_EQUAL => at += jump(accumulator == value),
                JUMP_GREATER => at += jump(accumulator > value),
                JUMP_GREATER_OR_EQUAL => at += jump(accumulator >= value),
                0x06 => return value,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    const X86_64: u32 = 0xc000_003e;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const KILL: u32 = 0x8000_0000;

    fn default_for(capabilities: &[Capability]) -> Program {
        compile(Profile::docker_default(), capabilities, Architecture::X86_64).unwrap().remove(0)
    }

    fn decide(program: &Program, name: &str, arguments: [u64; 6]) -> u32 {
        let number =
            (Architecture::X86_64.tables()[0].number)(name).unwrap_or_else(|| panic!("no {name}"));
        run(program, X86_64, number, arguments)
    }

    #[test]
    fn the_default_profile_decides_as_docker_does() {
        let program = default_for(&[]);
        let newuser = 0x1000_0000;
        for (name, first, expected) in [
            ("read", 0, ALLOW),
            ("mkdir", 0, ALLOW),
            ("ptrace", 0, ALLOW),
            ("arch_prctl", 0, ALLOW),
            ("futex_waitv", 0, ALLOW),
            ("keyctl", 0, EPERM),
            ("mount", 0, EPERM),
            ("unshare", newuser, EPERM),
            ("setns", 0, EPERM),
            ("chroot", 0, EPERM),
            ("bpf", 0, EPERM),
            ("io_uring_setup", 0, EPERM),
            ("userfaultfd", 0, EPERM),
            ("clone", 0x0100_0000 | 17, ALLOW),
            ("clone", newuser, EPERM),
            ("clone", 0x0002_0000, EPERM),
            ("clone", 0x0200_0000, EPERM),
            ("clone3", 0, ENOSYS),
            ("personality", 0, ALLOW),
            ("personality", 0xffff_ffff, ALLOW),
            ("personality", 0x0002_0008, ALLOW),
            ("personality", 0x0004_0000, EPERM),
            ("personality", 1 << 32, EPERM),
            ("socket", 2, ALLOW),
            ("socket", 10, ALLOW),
            ("socket", 16, ALLOW),
            ("socket", 40, EPERM),
            ("socket", 38, EPERM),
            ("socket", 12, EPERM),
            ("socket", 46, EPERM),
        ] {
            assert_eq!(
                decide(&program, name, [first, 0, 0, 0, 0, 0]),
                expected,
                "{name} {first:#x}"
            );
        }
    }

    #[test]
    fn capabilities_open_what_belongs_to_them() {
        let program = default_for(&[Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT]);
        for (name, expected) in [
            ("mount", ALLOW),
            ("unshare", ALLOW),
            ("clone3", ALLOW),
            ("clone", ALLOW),
            ("chroot", ALLOW),
            ("reboot", EPERM),
            ("keyctl", EPERM),
        ] {
            let all_flags = [0xffff_ffff, 0, 0, 0, 0, 0];
            assert_eq!(decide(&program, name, all_flags), expected, "{name}");
        }
    }

    #[test]
    fn numbers_outside_the_table_answer_by_kind() {
        let program = default_for(&[]);
        for (what, audit, number, expected) in [
            ("x86-64, newer than the profile", X86_64, 470, ENOSYS),
            ("x86-64, no number at all", X86_64, u32::MAX, EPERM),
            ("x32 read", X86_64, 0x4000_0000, EPERM),
            ("x32 mkdir", X86_64, 0x4000_0053, EPERM),
            ("i386 read", 0x4000_0003, 3, ALLOW),
            ("i386 keyctl", 0x4000_0003, 288, EPERM),
            ("i386 mount", 0x4000_0003, 21, EPERM),
            ("arm64 read", 0xc000_00b7, 63, KILL),
        ] {
            assert_eq!(run(&program, audit, number, [0; 6]), expected, "{what}");
        }
        let arm = compile(Profile::docker_default(), &[], Architecture::Aarch64).unwrap();
        for (what, audit, number, expected) in [
            ("arm64 read", 0xc000_00b7, 63, ALLOW),
            ("arm64 mount", 0xc000_00b7, 40, EPERM),
            ("arm64 clone3", 0xc000_00b7, 435, ENOSYS),
            ("arm read", 0x4000_0028, 3, ALLOW),
            ("x86-64 read", X86_64, 0, KILL),
        ] {
            assert_eq!(run(&arm[0], audit, number, [0; 6]), expected, "{what}");
        }
    }

    #[test]
    fn every_call_is_decided_as_a_plain_reading_of_the_rules_says() {
        let profile = Profile::docker_default();
        let program = default_for(&[]);
        for sysno in syscalls::x86_64::Sysno::iter() {
            let listed = profile.rules.iter().any(|rule| {
                rule.conditions.is_empty()
                    && rule.action == Action::Allow
                    && rule.includes.caps.is_empty()
                    && (rule.includes.arches.is_empty() || rule.includes.arches == ["x86_64"])
                    && rule.names.iter().any(|name| name == sysno.name())
            });
            let decided = run(&program, X86_64, sysno as u32, [u64::MAX; 6]);
            assert_eq!(decided == ALLOW, listed, "{sysno}");
        }
    }

    #[test]
    fn comparisons_are_unsigned_and_64_bits_wide() {
        let values = [
            0,
            1,
            5,
            6,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 5,
            (1 << 32) + 6,
            (2 << 32) + 5,
            u64::MAX,
        ];
        let limit = (1_u64 << 32) + 5;
        type Holds = fn(u64, u64) -> bool;
        let cases: [(&str, Comparison, Holds); 8] = [
            ("=", Comparison::Equal(limit), |a, b| a == b),
            ("!=", Comparison::NotEqual(limit), |a, b| a != b),
            ("<", Comparison::Less(limit), |a, b| a < b),
            ("<=", Comparison::LessOrEqual(limit), |a, b| a <= b),
            (">", Comparison::Greater(limit), |a, b| a > b),
            (">=", Comparison::GreaterOrEqual(limit), |a, b| a >= b),
            ("&", Comparison::MaskedEqual { mask: limit, value: 1 << 32 }, |a, b| a & b == 1 << 32),
            ("in", Comparison::OneOf(vec![1, 5, 0xffff_ffff]), |a, _| {
                [1, 5, 0xffff_ffff].contains(&a)
            }),
        ];
        for (name, comparison, holds) in cases {
            let rule = Rule {
                names: vec!["read".into()],
                action: Action::Allow,
                conditions: vec![
                    Condition { argument: 1, comparison },
                    Condition { argument: 5, comparison: Comparison::Equal(7) },
                ],
                includes: Scope::default(),
                excludes: Scope::default(),
            };
            let profile = Profile::new(Action::Errno(1), vec![rule]);
            let program = compile(&profile, &[], Architecture::X86_64).unwrap().remove(0);
            for value in values {
                let expected = if holds(value, limit) { ALLOW } else { EPERM };
                assert_eq!(
                    decide(&program, "read", [9, value, 0, 0, 0, 7]),
                    expected,
                    "{value:#x} {name}"
                );
                assert_eq!(
                    decide(&program, "read", [9, value, 0, 0, 0, 8]),
                    EPERM,
                    "{value:#x} {name}, other argument"
                );
            }
        }
    }

    #[test]
    fn profiles_in_dockers_format_are_read() {
        let json = br#"{
            "defaultAction": "SCMP_ACT_ALLOW",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null}],
            "syscalls": [
                {"names": ["mkdir", "not_a_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"name": "chmod", "action": "SCMP_ACT_ERRNO", "args": null},
                {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS",
                 "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"},
                          {"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
                {"names": ["mount"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_TRAP", "excludes": {"arches": ["amd64"]}},
                {"names": ["kcmp"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "999.0"}},
                {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.8"}}
            ]}"#;
        let profile = Profile::from_json(json).unwrap();
        let program = compile(&profile, &[], Architecture::X86_64).unwrap().remove(0);
        for (name, first, expected) in [
            ("mkdir", 0, 0x0005_000d),
            ("chmod", 0, EPERM),
            ("socket", 40, KILL),
            ("socket", 38, KILL),
            ("socket", 2, ALLOW),
            ("mount", 0, ALLOW),
            ("ptrace", 0, ALLOW),
            ("kcmp", 0, ALLOW),
            ("reboot", 0, EPERM),
            ("read", 0, ALLOW),
        ] {
            assert_eq!(decide(&program, name, [first, 0, 0, 0, 0, 0]), expected, "{name} {first}");
        }
        assert_eq!(run(&program, X86_64, 1000, [0; 6]), ALLOW, "an open default stays open");
        let admin = [Capability::CAP_SYS_ADMIN];
        let program = compile(&profile, &admin, Architecture::X86_64).unwrap().remove(0);
        assert_eq!(decide(&program, "mount", [0; 6]), 0x7ffc_0000);
    }

    #[test]
    fn the_section_of_an_oci_spec_is_read() {
        let section: oci_spec::runtime::LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95, "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                              "args": [{"index": 2, "value": 255, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        let profile = Profile::try_from(&section).unwrap();
        let program = compile(&profile, &[], Architecture::X86_64).unwrap().remove(0);
        assert_eq!(decide(&program, "read", [0, 0, 0x301, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "read", [0, 0, 0x302, 0, 0, 0]), 0x0005_005f);
    }

    #[test]
    fn profiles_that_cannot_be_kept_are_refused() {
        for (json, expected) in [
            (
                r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
                "the seccomp action SCMP_ACT_NOTIFY is not supported",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}"#,
                "5000 is no error number that a system call can return",
            ),
            (r#"{"defaultAction": 1}"#, "the seccomp profile is not in Docker's format"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "a system call has six arguments, numbered from 0: there is no argument 6",
            ),
        ] {
            assert_eq!(
                Profile::from_json(json.as_bytes()).unwrap_err().to_string(),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn names_in_the_default_profile_are_known_somewhere() {
        let tables = [Architecture::X86_64, Architecture::Aarch64].map(Architecture::tables);
        // Private calls of arm, and those of architectures that we have no table for.
        let elsewhere =
            ["breakpoint", "cacheflush", "riscv_hwprobe", "set_tls", "sync_file_range2"];
        for name in Profile::docker_default().rules.iter().flat_map(|rule| &rule.names) {
            let known = tables.iter().flatten().any(|table| (table.number)(name).is_some());
            assert!(known || elsewhere.contains(&name.as_str()), "{name} has no number anywhere");
        }
    }
}
