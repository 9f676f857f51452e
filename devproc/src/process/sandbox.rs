//! What a device process may still do once its models are built: work with the memory and the files that it
//! has, and nothing else. No other files (Landlock), no network, no other programs, no signals to other
//! processes (Landlock and seccomp).
//!
//! Its models may come from anybody and are fed by a guest. Where the kernel lacks one of the two, the
//! other still holds; the log says so.

use ipc::machine::MachineConfig;
use ipc::segment::SegmentNames;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest version of Landlock whose restrictions are asked for; older kernels do what they can.
const NEWEST: ABI = ABI::V6;
/// Where libraries are, for the names in a backtrace.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Bit of the flags of clone(2): a thread, not a process.
const CLONE_THREAD: u64 = 0x1_0000;
/// What an ioctl of the standard library asks: non-blocking, close-on-exec, how much there is, is it a terminal.
const IOCTLS: [u64; 4] = [0x5421, 0x5451, 0x541b, 0x5401];
/// prctl(2): the name of a thread, the name of a mapping.
const PRCTLS: [u64; 2] = [15, 0x5356_4d41];

/// Goes into the sandbox, for good. Says what holds, or why it cannot be had.
pub fn enter(
    config: &MachineConfig,
    names: &SegmentNames,
    slot: usize,
    log: &Path,
) -> Result<String, String> {
    let files = restrict_files(config, names, slot, log);
    let calls = restrict_calls();
    match (files, calls) {
        (Ok(files), Ok(())) => Ok(format!("files: {files}; system calls: restricted")),
        (Ok(files), Err(error)) => Ok(format!("files: {files}; system calls: not restricted ({error})")),
        (Err(error), Ok(())) => Ok(format!("files: not restricted ({error}); system calls: restricted")),
        (Err(files), Err(calls)) => Err(format!("{files}; {calls}")),
    }
}

fn restrict_files(
    config: &MachineConfig,
    names: &SegmentNames,
    slot: usize,
    log: &Path,
) -> Result<&'static str, String> {
    let error = |error: landlock::RulesetError| error.to_string();
    let read: BitFlags<AccessFs> = AccessFs::ReadFile.into();
    let write = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut allowed = open_files();
    // For the time when it must do without a predecessor that gave its place to it, and for backtraces. Guest RAM is
    // not among it: what the process may reach is mapped.
    allowed.extend([(config.firmware.clone(), read), (log.to_owned(), write)]);
    allowed.extend(config.video_rom.clone().map(|rom| (rom, read)));
    allowed.extend(std::env::current_exe().ok().map(|exe| (exe, read)));
    allowed.extend(LIBRARIES.map(|folder| (folder.into(), read | AccessFs::ReadDir)));
    let segments = [names.board(), names.screen(), names.serial(), names.link(slot)];
    let segments = segments.into_iter().chain([names.device_memory(slot)]);
    let place = |name: String| Path::new("/dev/shm").join(name);
    allowed.extend(segments.map(|name| (place(name), write)));
    allowed.push((place(names.panel()), read));

    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(error)?;
    for (path, access) in allowed {
        // What does not exist need not be allowed.
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, access)).map_err(error)?;
        }
    }
    match rules.restrict_self().map_err(error)?.ruleset {
        RulesetStatus::FullyEnforced => Ok("restricted"),
        RulesetStatus::PartiallyEnforced => Ok("restricted as far as this kernel can"),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".into()),
    }
}

/// The files that are open now (images, CMOS RAM, logs), as they are open.
fn open_files() -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        let path = std::fs::read_link(entry.path()).ok()?;
        let file = path.is_absolute() && path.is_file();
        let info = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let writable = u32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE as u32 != 0;
        // Not to be cut short: shared memory is among them.
        let access =
            if writable { AccessFs::ReadFile | AccessFs::WriteFile } else { AccessFs::ReadFile.into() };
        file.then_some((path, access))
    });
    files.collect()
}

fn restrict_calls() -> Result<(), String> {
    let error = |error: &dyn std::fmt::Display| error.to_string();
    let filter = filter().map_err(|e| error(&e))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|e| error(&e))
}

/// What is not on the list does not exist as far as this process is concerned.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let when = |argument, length, operation, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operation, value)?])
    };
    let thread = SeccompCmpOp::MaskedEq(CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpArgLen::Qword, thread, CLONE_THREAD)?]);
    // For `abort`.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?]);
    // For the fault that kills it.
    rules.insert(libc::SYS_kill, vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?]);
    for (call, argument, values) in [(libc::SYS_ioctl, 1, &IOCTLS[..]), (libc::SYS_prctl, 0, &PRCTLS[..])] {
        let equals = |value: &u64| when(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value);
        rules.insert(call, values.iter().map(equals).collect::<Result<_, _>>()?);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // "No such call", so that the C library takes another way where it knows one.
    let otherwise = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

/// System calls that are allowed whatever they are asked.
const ALLOWED: &[i64] = &[
    // Files: which, Landlock says.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    // Not ftruncate: whoever touches shared memory that somebody has cut short dies of it.
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_getcwd,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    // Not mremap: it would let a mapping of guest RAM grow beyond its range without a file descriptor.
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    // Waiting, and time.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    // The channels to the supervisor that exist already.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // The process itself.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles_for_this_machine() {
        assert!(!super::filter().unwrap().is_empty());
    }
}
