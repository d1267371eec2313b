use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::notify::hooks::output::LINES_MAX;

/// A script and where it runs.
struct Script(tempfile::TempDir);

impl Script {
    fn new(text: &str) -> Self {
        let script = Self(tempfile::tempdir().unwrap());
        // Written by a process that has ended: a descriptor of ours might be inherited by a hook that
        // another test is just starting, and then the kernel says that the file is busy.
        let mut command = Command::new("sh");
        command.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(script.path()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        script
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("hook")
    }

    async fn run_with(
        &self,
        timeout: Duration,
        stop: watch::Receiver<bool>,
    ) -> (io::Result<Ended>, Vec<String>) {
        let mut lines = Vec::new();
        let run = Run {
            program: self.path(),
            directory: self.0.path().to_owned(),
            environment: vec![("PATH", "/usr/bin:/bin".into()), ("GREETING", "good day".into())],
            timeout,
        };
        let ended = super::run(run, stop, |line| lines.push(line.to_owned())).await;
        (ended, lines)
    }

    async fn run(&self) -> (Ended, Vec<String>) {
        let stop = watch::Sender::new(false);
        let (ended, lines) = self.run_with(Duration::from_secs(20), stop.subscribe()).await;
        (ended.unwrap(), lines)
    }
}

/// Processes whose command line has this word, zombies left out.
fn alive(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.split('\0').any(|argument| argument == word)).count()
}

#[tokio::test]
async fn a_hook_has_its_environment_and_nothing_of_ours() {
    let inherited = fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // SAFETY: ignoring a signal runs no code; no other test uses this one.
    unsafe { signal(Signal::SIGUSR2, SigHandler::SigIgn) }.unwrap();
    let script = Script::new(
        "#!/bin/bash\necho out; echo err >&2\nenv | sort | grep -v -e ^_= -e ^SHLVL= -e ^PWD=\npwd\nls /proc/self/fd | tr '\\n' ' '; echo\n\
         readlink /proc/self/fd/0\ngrep SigBlk /proc/self/status | cut -f2\n\
         echo $((0x$(grep SigIgn /proc/self/status | cut -f2) & 0x7fffffff))\n\
         [ $(ps -o pgid= $$) = $$ ] && echo leader\nexit 3\n",
    );
    let (ended, lines) = script.run().await;
    let pwd = script.0.path().to_str().unwrap();
    // ls has its own descriptor of the directory, 3; signal 32 is the C library's.
    assert_eq!(
        lines,
        [
            "out",
            "err",
            "GREETING=good day",
            "PATH=/usr/bin:/bin",
            pwd,
            "0 1 2 3",
            "/dev/null",
            "0000000000000000",
            "0",
            "leader"
        ]
    );
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!((ended.ended_by_us, ended.omitted), (None, 0));
}

#[tokio::test]
async fn a_script_without_an_interpreter_is_a_shells() {
    let (ended, lines) = Script::new("echo \"no line for me: $0\"\n").run().await;
    assert!(ended.status.success() && lines[0].starts_with("no line for me: /"), "{lines:?}");
    let (ended, lines) = Script::new("").run().await;
    assert!(ended.status.success() && lines.is_empty());
}

#[tokio::test]
async fn what_cannot_be_started_is_an_error() {
    let script = Script::new("#!/no/such/interpreter\n");
    let (ended, _) = script.run_with(Duration::from_secs(5), watch::Sender::new(false).subscribe()).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn after_the_timeout_the_whole_group_is_ended() {
    // A word of this run's own: what another one left behind is not counted.
    let hour = format!("3601.{}", std::process::id());
    let script = Script::new(&format!(
        "#!/bin/sh\nsleep {hour} &\nsh -c 'trap \"\" TERM; sleep {hour}; :' &\necho begun\nsleep {hour}\n"
    ));
    let stop = watch::Sender::new(false);
    let started = Instant::now();
    let (ended, lines) = script.run_with(Duration::from_millis(500), stop.subscribe()).await;
    let ended = ended.unwrap();
    assert_eq!(ended.ended_by_us, Some(Why::Timeout));
    assert_eq!(ended.status.signal(), Some(libc::SIGTERM));
    assert_eq!(lines, ["begun"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    // A KILL takes a moment to be carried out.
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(&hour) > 0 {
        assert!(Instant::now() < deadline, "{} of the group go on", alive(&hour));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_is_deaf_to_term_is_killed() {
    let script = Script::new("#!/bin/bash\ntrap '' TERM\nwhile :; do sleep 0.1; done\n");
    let stop = watch::Sender::new(false);
    let started = Instant::now();
    let (ended, _) = script.run_with(Duration::from_millis(200), stop.subscribe()).await;
    let ended = ended.unwrap();
    assert_eq!((ended.status.signal(), ended.ended_by_us), (Some(libc::SIGKILL), Some(Why::Timeout)));
    let took = started.elapsed();
    assert!(took >= GRACE && took < GRACE + Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_stopped_process_is_ended_too() {
    let script = Script::new("#!/bin/sh\nkill -STOP $$\n");
    let stop = watch::Sender::new(false);
    let started = Instant::now();
    let (ended, _) = script.run_with(Duration::from_millis(200), stop.subscribe()).await;
    assert_eq!(ended.unwrap().status.signal(), Some(libc::SIGTERM));
    assert!(started.elapsed() < GRACE);
}

#[tokio::test]
async fn a_hook_is_done_when_its_main_process_is() {
    let moment = format!("5.{}", std::process::id());
    let script = Script::new(&format!("#!/bin/sh\nsleep {moment} &\necho done\n"));
    let started = Instant::now();
    let (ended, lines) = script.run().await;
    assert!(started.elapsed() < Duration::from_secs(2), "the child holds the pipe open");
    assert!(ended.status.success());
    assert_eq!(lines, ["done"]);
    // The shell may have ended before its child came to be a `sleep`; one that was ended never does.
    let deadline = Instant::now() + Duration::from_secs(3);
    while alive(&moment) == 0 {
        assert!(Instant::now() < deadline, "it does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_read_and_left_out() {
    let script =
        Script::new("#!/bin/sh\nhead -c 100000000 /dev/zero | tr '\\0' x\necho\nyes | head -n 1000\n");
    let (ended, lines) = script.run().await;
    assert!(ended.status.success());
    assert_eq!(lines.len(), LINES_MAX as usize);
    let logged: usize = lines.iter().map(String::len).sum();
    assert!(logged < 10_000, "{logged}");
    assert!(ended.omitted > 99_990_000 && ended.omitted < 100_002_000, "{}", ended.omitted);
}

#[tokio::test]
async fn endless_output_does_not_outlast_the_timeout() {
    let script = Script::new("#!/bin/sh\nyes\n");
    let stop = watch::Sender::new(false);
    let started = Instant::now();
    let (ended, _) = script.run_with(Duration::from_millis(500), stop.subscribe()).await;
    let ended = ended.unwrap();
    assert_eq!(ended.ended_by_us, Some(Why::Timeout));
    assert!(ended.omitted > 0 && started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_hook_that_runs_at_the_stop_is_hurried() {
    let script = Script::new("#!/bin/sh\nsleep 3600\n");
    let stop = watch::Sender::new(false);
    let receiver = stop.subscribe();
    let started = Instant::now();
    let hurry = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.send_replace(true);
    };
    let ((ended, _), ()) = tokio::join!(script.run_with(Duration::from_secs(60), receiver), hurry);
    assert_eq!(ended.unwrap().ended_by_us, Some(Why::Stop));
    assert!(started.elapsed() < STOP_PATIENCE + STOP_GRACE);
}

#[tokio::test]
async fn one_that_ends_by_itself_in_time_was_not_ended() {
    let script = Script::new("#!/bin/sh\nsleep 1\nexit 0\n");
    let stop = watch::Sender::new(true);
    let (ended, _) = script.run_with(Duration::from_secs(60), stop.subscribe()).await;
    let ended = ended.unwrap();
    assert!(ended.status.success());
    assert_eq!(ended.ended_by_us, None);
}

#[test]
fn the_mode_of_a_script_matters() {
    let script = Script::new("#!/bin/sh\n");
    fs::set_permissions(script.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let run = Run {
        program: script.path(),
        directory: script.0.path().to_owned(),
        environment: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    assert_eq!(start(&run).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}
