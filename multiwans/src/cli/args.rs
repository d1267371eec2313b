//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config;

/// Steering and failover for routers with two or more internet links.
///
/// Without a command it does what `multiwans run` does.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// For `run`, where no command is named.
    #[command(flatten)]
    pub run: Run,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground until SIGINT, SIGTERM or SIGQUIT
    Run(Run),
    /// Check a configuration: print its summary, or every problem with its line
    Check(Check),
    /// Have the running daemon read its configuration anew: print what changed, or why nothing did
    Reload(Reload),
    /// Show the links of the running daemon
    Status(Status),
    /// Send a test mail and tell each step
    MailTest(Check),
}

/// `multiwans run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration [default: config.yaml beside the program, then /etc/multiwans/config.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Control socket, instead of `daemon.controlSocket`
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How much to log, instead of `daemon.logLevel`; `debug` tells each packet's decision
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
}

/// `multiwans check`, `multiwans mail-test`.
#[derive(Debug, Args)]
pub struct Check {
    /// Configuration [default: config.yaml beside the program, then /etc/multiwans/config.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `multiwans reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// Control socket [default: the configuration's `daemon.controlSocket`, else /run/multiwans/control.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration to take the control socket from; refused if the daemon was started with another one
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

/// `multiwans status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Control socket [default: the configuration's `daemon.controlSocket`, else /run/multiwans/control.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration to take the control socket from
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// A person must act
    Error,
    /// Something is degraded
    Warn,
    /// Changes of state
    Info,
    /// Every packet's decision, every command
    Debug,
}

impl From<LogLevel> for config::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}
