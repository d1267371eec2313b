//! Network namespaces for tests, without names: they are gone, with all in them, once the last handle
//! is. Nothing touches the namespace the tests were started in.

pub(crate) mod isp;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace; its loopback is up.
pub(crate) struct Netns {
    handle: File,
}

impl Netns {
    /// Makes an empty one. Needs root.
    pub(crate) fn new() -> Self {
        let handle = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces need root");
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        let netns = Self { handle };
        netns.ip("link set lo up");
        netns
    }

    /// Runs `work` on a thread inside it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `ip ARGS` inside it; must succeed.
    pub(crate) fn ip(&self, args: &str) {
        self.command("ip", args);
    }

    /// `PROGRAM ARGS` inside it; must succeed. Returns what it printed.
    pub(crate) fn command(&self, program: &str, args: &str) -> String {
        let output = self.run(|| Command::new(program).args(args.split_whitespace()).output().unwrap());
        assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes below `/proc/sys/net`, which shows the writer's namespace.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// The index of its interface `name`.
    pub(crate) fn index(&self, name: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(name).unwrap())
    }

    /// Makes a cable between `name` here and `peer_name` there, both up, with these addresses.
    pub(crate) fn cable(&self, name: &str, address: &str, peer: &Netns, peer_name: &str, peer_address: &str) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), peer.handle.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {there}"));
        self.ip(&format!("addr add {address} dev {name}"));
        peer.ip(&format!("addr add {peer_address} dev {peer_name}"));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }
}
