/* The floor: the least that the kernel lets a full container cost.
 *
 *     floor [-c] [-n TIMES] LOWER SCRATCH PROGRAM [ARGUMENT…]
 *
 * Runs PROGRAM in a fresh container over the directory LOWER: seven new
 * namespaces in one clone3, overlayfs (upper directory under SCRATCH),
 * pivot_root, /proc, /sys, /dev with its nodes, devpts, shm, mqueue, masked and
 * read-only paths, no_new_privs, no capability but Docker's, a seccomp filter
 * as long as Docker's, and with -c a cgroup v2 of its own. Then it waits and
 * cleans up. With -n it does so TIMES times in one process and prints the
 * microseconds of each. Every shortcut is allowed here: no image, no
 * configuration, no error messages worth reading. Needs root and Linux 5.11.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRY(call) do { if ((call) < 0) { \
    fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno)); _exit(111); } } while (0)

static const char *lower, *scratch;
static char **program;
static char upper[256], work[256], merged[256];

/* Docker's fourteen: the bounding set keeps these and drops the others. */
static const uint64_t DOCKER_CAPABILITIES = 0xa80425fb;

static void mount_all(void)
{
    char options[1024];
    TRY(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,volatile", lower, upper, work);
    TRY(mount("overlay", merged, "overlay", 0, options));
    TRY(chdir(merged));
    TRY(syscall(SYS_pivot_root, ".", "."));
    TRY(umount2(".", MNT_DETACH));
    TRY(chdir("/"));

    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755);
    TRY(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    TRY(mount("sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    TRY(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
        {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        TRY(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    mkdir("/dev/pts", 0755), mkdir("/dev/shm", 0755), mkdir("/dev/mqueue", 0755);
    TRY(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    TRY(mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"));
    TRY(mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));

    static const char *masked[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug"};
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        mount("/dev/null", masked[i], 0, MS_BIND, 0);
    static const char *hidden[] = {"/proc/acpi", "/proc/scsi", "/sys/firmware"};
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        mount("tmpfs", hidden[i], "tmpfs", MS_RDONLY, "size=0");
    static const char *fixed[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (mount(fixed[i], fixed[i], 0, MS_BIND, 0) == 0)
            mount(0, fixed[i], 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
}

static void give_up_rights(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!(DOCKER_CAPABILITIES >> capability & 1))
            TRY(prctl(PR_CAPBSET_DROP, capability));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{DOCKER_CAPABILITIES, DOCKER_CAPABILITIES, 0}, {0}};
    TRY(syscall(SYS_capset, &header, sets));
    TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));

    /* 330 comparisons that never match: the length of Docker's profile. */
    static struct sock_filter filter[332];
    size_t length = 0;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    while (length < 331)
        filter[length] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 5000 + length, 0, 0), length++;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog loaded = {length, filter};
    TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &loaded));
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static void run_once(int with_cgroup, long number)
{
    char directory[224], cgroup[256];
    snprintf(directory, sizeof directory, "%s/%d-%ld", scratch, getpid(), number);
    snprintf(upper, sizeof upper, "%s/upper", directory);
    snprintf(work, sizeof work, "%s/work", directory);
    snprintf(merged, sizeof merged, "%s/merged", directory);
    TRY(mkdir(directory, 0700));
    TRY(mkdir(upper, 0755));
    TRY(mkdir(work, 0700));
    TRY(mkdir(merged, 0700));

    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    int cgroup_fd = -1;
    if (with_cgroup) {
        const char *unified = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
        snprintf(cgroup, sizeof cgroup, "%s/floor-%d-%ld", unified, getpid(), number);
        TRY(mkdir(cgroup, 0755));
        TRY(cgroup_fd = open(cgroup, O_DIRECTORY | O_CLOEXEC));
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    long pid = syscall(SYS_clone3, &args, sizeof args);
    TRY(pid);
    if (pid == 0) {
        mount_all();
        TRY(sethostname("floor", 5));
        give_up_rights();
        static char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0};
        execve(program[0], program, environment);
        _exit(127);
    }
    int status;
    TRY(waitpid((pid_t)pid, &status, 0));
    if (status) { fprintf(stderr, "floor: the program ended with %#x\n", status); exit(1); }
    if (with_cgroup) { close(cgroup_fd); TRY(rmdir(cgroup)); }
    nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(int count, char **arguments)
{
    int with_cgroup = 0, option;
    long times = 0;
    while ((option = getopt(count, arguments, "+cn:")) != -1)
        switch (option) {
        case 'c': with_cgroup = 1; break;
        case 'n': times = atol(optarg); break;
        default: return 2;
        }
    if (count - optind < 3) { fprintf(stderr, "usage: floor [-c] [-n TIMES] LOWER SCRATCH PROGRAM [ARGUMENT...]\n"); return 2; }
    lower = arguments[optind], scratch = arguments[optind + 1], program = arguments + optind + 2;
    mkdir(scratch, 0700);

    if (!times) { run_once(with_cgroup, 0); return 0; }
    for (long i = 0; i < times; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        run_once(with_cgroup, i);
        clock_gettime(CLOCK_MONOTONIC, &after);
        printf("%.1f\n", (after.tv_sec - before.tv_sec) * 1e6 + (after.tv_nsec - before.tv_nsec) / 1e3);
    }
    return 0;
}
