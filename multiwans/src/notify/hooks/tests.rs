//! The queues, with real hooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::engine::tests::world;
use crate::types::LinkState::{Off, On, Unknow};

/// Puts a hook that appends to `trace` in place.
fn hook(dir: &Path, name: &str, body: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn change(wan: u8, previous: LinkState, state: LinkState) -> LinkChange {
    let reason = if state == Off { "no carrier" } else { "" };
    LinkChange {
        wan: world::wan(wan),
        state,
        previous,
        reason: reason.to_owned(),
        default: Some(world::wan(2)),
    }
}

/// Waits until the trace has that many lines.
async fn trace(dir: &Path, lines: usize) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let text = fs::read_to_string(dir.join("trace")).unwrap_or_default();
        if text.lines().count() >= lines || tokio::time::Instant::now() > deadline {
            return text.lines().map(str::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn hooks_are_told_everything_and_run_in_order() {
    let dir = tempfile::tempdir().unwrap();
    hook(dir.path(), "eth1/down/10-last", "echo last >> trace");
    hook(dir.path(), "eth1/down/1-fails", "exit 1");
    hook(dir.path(), "eth1/down/2-tells", "env | grep MULTIWANS | sort | sed s/MULTIWANS_// >> trace");
    let config = world::config(&[Some(1), Some(2)]);
    let mut hooks = Hooks::new(dir.path(), Duration::from_secs(10));
    hooks.run(&config, &config.wans[0], &change(1, On, Off));
    assert_eq!(
        trace(dir.path(), 12).await,
        [
            "DEFAULT=WAN2",
            "FWMARK=0x1/0xff",
            "GATEWAY=10.0.1.1",
            "IFACE=eth1",
            "IP=10.0.1.2",
            "MARK=1",
            "PREVIOUS=ON",
            "REASON=no carrier",
            "STATE=OFF",
            "TABLE=1",
            "WAN=WAN1",
            "last"
        ]
    );
    hooks.stop().await;
}

#[tokio::test]
async fn a_slow_hook_keeps_only_its_own_interface_waiting() {
    let dir = tempfile::tempdir().unwrap();
    hook(dir.path(), "eth1/up/slow", "echo eth1 up >> trace; while [ ! -e go ]; do sleep 0.05; done");
    hook(dir.path(), "eth1/down/x", "echo eth1 down >> trace");
    hook(dir.path(), "eth2/up/x", "echo eth2 up >> trace");
    let config = world::config(&[Some(1), Some(2)]);
    let mut hooks = Hooks::new(dir.path(), Duration::from_secs(20));
    hooks.run(&config, &config.wans[0], &change(1, Unknow, On));
    assert_eq!(trace(dir.path(), 1).await, ["eth1 up"]);
    for _ in 0..3 {
        hooks.run(&config, &config.wans[0], &change(1, On, Off));
        hooks.run(&config, &config.wans[0], &change(1, Off, On));
    }
    hooks.run(&config, &config.wans[0], &change(1, On, Off));
    hooks.run(&config, &config.wans[1], &change(2, Unknow, On));
    assert_eq!(trace(dir.path(), 2).await, ["eth1 up", "eth2 up"]);
    fs::write(dir.path().join("go"), "").unwrap();
    assert_eq!(trace(dir.path(), 3).await, ["eth1 up", "eth2 up", "eth1 down"]);
    // The queue keeps its order: whatever else ran would have run before this.
    hooks.run(&config, &config.wans[0], &change(1, Off, On));
    let all = ["eth1 up", "eth2 up", "eth1 down", "eth1 up"];
    assert_eq!(trace(dir.path(), 4).await, all, "flaps cancelled out");
    hooks.stop().await;
}

#[tokio::test]
async fn a_stop_is_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    hook(dir.path(), "eth1/up/1", "echo begun >> trace; sleep 3600");
    hook(dir.path(), "eth1/up/2", "echo never >> trace");
    hook(dir.path(), "eth1/down/1", "echo never >> trace");
    let config = world::config(&[Some(1)]);
    let mut hooks = Hooks::new(dir.path(), Duration::from_secs(60));
    hooks.run(&config, &config.wans[0], &change(1, Unknow, On));
    trace(dir.path(), 1).await;
    hooks.run(&config, &config.wans[0], &change(1, On, Off));
    let started = Instant::now();
    hooks.stop().await;
    assert!(started.elapsed() < STOP_MAX, "{:?}", started.elapsed());
    assert_eq!(trace(dir.path(), 1).await, ["begun"]);
}
