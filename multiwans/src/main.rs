//! The `multiwans` binary.

fn main() -> std::process::ExitCode {
    multiwans::cli::main()
}
