//! What a program in a sandbox may not do, beyond what namespaces keep from it.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What root keeps of its rights: those over files and over users, which trees
/// can hold.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// Calls that would let a program change what it sees of the machine, or the
/// machine itself. Most need rights that it has not; the others would be ways
/// around that.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Namespaces that clone(2) could make.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Takes rights away from this process and all that it becomes and starts.
pub(super) fn confine() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    for capability in CapabilitySet::all().iter() {
        if !KEPT.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                // The kernel is older than the capability.
                Err(rustix::io::Errno::INVAL) => {}
                result => result?,
            }
        }
    }
    // What is left when the program begins is what is in the bounding set.
    set_no_new_privs(true)?;
    for (filter, action) in [
        // glibc then uses clone(2), whose flags can be looked at.
        (BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS),
        (refused()?, libc::EPERM),
    ] {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(other)?;
        let action = SeccompAction::Errno(action.cast_unsigned());
        let filter = SeccompFilter::new(filter, SeccompAction::Allow, action, arch);
        let program: seccompiler::BpfProgram = filter.and_then(TryInto::try_into).map_err(other)?;
        seccompiler::apply_filter(&program).map_err(other)?;
    }
    Ok(())
}

fn refused() -> io::Result<BTreeMap<libc::c_long, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let flag = |flag: &libc::c_int| {
        let bits = u64::from(flag.cast_unsigned());
        let op = SeccompCmpOp::MaskedEq(bits);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, op, bits)?;
        SeccompRule::new(vec![condition])
    };
    let namespaces = NAMESPACES.iter().map(flag);
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>().map_err(other)?);
    Ok(rules)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
