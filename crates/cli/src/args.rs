//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const EXIT_CODES: &str = "\
Exit codes:
  0  it was done, and what was asked about is in order
  1  it was done, and the answer is no: problems found, a call refused, a journal that does not verify, an attack that got through
  2  it could not be done: bad input, a missing project, a taken port, a locked or corrupt journal

Log: RINGFENCE_LOG=info (or debug, or a tracing filter); NO_COLOR=1 for no colours.";

/// The boundary between an AI agent and the systems it acts on.
#[derive(Parser)]
#[command(name = "ringfence", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Writes a project that works as it stands.
    #[command(after_help = "Example:\n  ringfence init my-agents && ringfence serve my-agents")]
    Init {
        /// The folder; made where it is missing, and left alone where it holds a project.
        dir: PathBuf,
    },
    /// Checks a project and reports all problems at once, each with file, line, column and what to write instead.
    #[command(after_help = "Example:\n  ringfence check my-agents --json | jq '.problems[]'")]
    Check {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Serves MCP over Streamable HTTP until it is told to stop (SIGTERM or Ctrl-C).
    #[command(after_help = "Example:\n  ringfence serve my-agents\n  curl http://127.0.0.1:8787/readyz")]
    Serve {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Seconds that calls under way have to finish when it stops; the rest are closed as unknown.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=3600))]
        grace_seconds: u64,
        /// How the log is written to standard error.
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
    /// Plays one call against a project, through the same pipeline as an agent's.
    #[command(after_help = "Examples:
  ringfence call get_user_monthly_metrics user_id=u-1 month=2026-10 --as bob --project my-agents
  ringfence call run_python 'code=print(6*7)' --as bob --project my-agents")]
    Call {
        /// The tool.
        tool: String,
        /// Its arguments; `key:=JSON` passes a JSON value as it stands.
        #[arg(value_name = "KEY=VALUE")]
        arguments: Vec<String>,
        /// The user of the development issuer in whose name it is.
        #[arg(long = "as", value_name = "USER")]
        user: String,
        #[command(flatten)]
        project: ProjectFolder,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Mints a development token.
    #[command(
        after_help = "Example:\n  curl -H \"Authorization: Bearer $(ringfence token --as bob --project my-agents)\" …"
    )]
    Token {
        /// The user of the development issuer.
        #[arg(long = "as", value_name = "USER")]
        user: String,
        #[command(flatten)]
        project: ProjectFolder,
        /// The door that it opens.
        #[arg(long, value_enum, default_value_t = TokenDoor::Agents)]
        door: TokenDoor,
        /// The OAuth client that it is for.
        #[arg(long, default_value = "ringfence-cli")]
        agent: String,
        /// How long it lives, in seconds.
        #[arg(long, default_value_t = 3600)]
        lifetime_seconds: u64,
        /// Further scopes.
        #[arg(long = "scope")]
        scopes: Vec<String>,
    },
    /// Looks at the journal.
    #[command(subcommand)]
    Journal(Journal),
    /// Plays a rogue agent against a gateway on this machine, and shows what stopped it.
    #[command(after_help = "Example:\n  ringfence demo --json | jq '{attacks_tried, attacks_through}'")]
    Demo {
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
        /// Keeps the demo's project in this folder.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// Runs a program in a sandbox of its own; no project is needed.
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Says what this machine can enforce, what it cannot, and what to do about it.
    #[command(after_help = "Example:\n  ringfence doctor --json | jq '.findings[] | select(.fine | not)'")]
    Doctor {
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Prints completions for a shell.
    #[command(
        after_help = "Example:\n  ringfence completions bash > ~/.local/share/bash-completion/completions/ringfence"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Subcommand)]
pub(crate) enum Journal {
    /// Proves that the journal is what was written, or says which entry is not.
    #[command(after_help = "Example:\n  ringfence journal verify my-agents --head /mnt/worm/journal.head")]
    Verify {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// A head that was kept elsewhere, in place of the project's own.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Shows entries, newest last.
    #[command(after_help = "Example:\n  ringfence journal show my-agents --kind refused --last 20")]
    Show {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// At most so many, the newest ones.
        #[arg(long, default_value_t = 50)]
        last: u64,
        /// Only this kind.
        #[arg(long, value_parser = ["intent", "refused", "labelled", "egress", "outcome", "artifact_read", "rejected", "opened", "closed"])]
        kind: Option<String>,
        /// Only this tool.
        #[arg(long)]
        tool: Option<String>,
        /// Only this call.
        #[arg(long)]
        call: Option<String>,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Sandbox {
    /// Runs one program and is gone: what it writes and its exit code pass through.
    #[command(after_help = "Examples:
  echo 'print(6*7)' | ringfence sandbox run
  ringfence sandbox run --language bash --seconds 5 script.sh
  ringfence sandbox run --file data.csv analyse.py        # found as /work/in/data.csv

Exit codes: the program's own; 124 when its time was up, 137 for want of memory, 125 when it wrote too much or was killed;
2 when the sandbox could not be built as its profile says, and nothing ran.")]
    Run(SandboxRun),
}

#[derive(Args)]
pub(crate) struct SandboxRun {
    /// The program; `-` for standard input.
    #[arg(default_value = "-")]
    pub(crate) program: PathBuf,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = SandboxLanguage::Python)]
    pub(crate) language: SandboxLanguage,
    /// How long it may take.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How much memory it may have, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: u64,
    /// How many processes and threads it may have.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) processes: u64,
    /// A file that it finds in `/work/in`.
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Prints one JSON object: what it wrote, how it ended, and the receipt.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub(crate) enum SandboxLanguage {
    /// Python 3.
    Python,
    /// Bash.
    Bash,
    /// Node.js, where the machine has it.
    Node,
}

#[derive(Args)]
pub(crate) struct ProjectFolder {
    /// The project.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) project: PathBuf,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub(crate) enum TokenDoor {
    /// `/mcp`.
    Agents,
    /// Status, and later approvals and the console.
    People,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(crate) fn parse() -> Arguments {
    Arguments::parse()
}
