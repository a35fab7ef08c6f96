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
        #[arg(long = "as", value_name = "USER", required_unless_present = "application")]
        user: Option<String>,
        /// In place of a user: an application that starts runs, by its OAuth client, in its own name.
        #[arg(long, value_name = "CLIENT", conflicts_with_all = ["user", "agent"])]
        application: Option<String>,
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
    /// Logs in at a gateway with a browser, for `ringfence stdio`. The login is kept where this user alone can read it.
    #[command(after_help = "Examples:
  ringfence login https://agents.example.com/mcp
  ringfence login http://127.0.0.1:8787/mcp --scope tools --no-browser
  ringfence login my-agents        # where `ringfence stdio my-agents` serves it")]
    Login(LoginAsking),
    /// Ends a login: its issuer takes the tokens back, where it can, and they are deleted here.
    #[command(after_help = "Example:\n  ringfence logout https://agents.example.com/mcp")]
    Logout {
        /// The address of the gateway's `/mcp`, or a project's folder.
        gateway: String,
    },
    /// Speaks MCP on standard input and output, for desktop clients, in the name of the user who has logged in.
    #[command(
        group = clap::ArgGroup::new("where").required(true),
        after_help = "Examples:
  ringfence stdio --connect https://agents.example.com/mcp   # a gateway that runs under another account
  ringfence stdio my-agents                                  # in this process; see SECURITY.md for what that cannot promise"
    )]
    Stdio {
        /// A project, served in this process for this one user.
        #[arg(group = "where")]
        dir: Option<PathBuf>,
        /// A gateway that serves already: the address of its `/mcp`.
        #[arg(long, value_name = "URL", group = "where")]
        connect: Option<String>,
    },
    /// Looks at runs, and revokes them.
    #[command(subcommand)]
    Runs(Runs),
    /// Looks at the journal.
    #[command(subcommand)]
    Journal(Journal),
    /// Looks at the accounts that users have connected.
    #[command(subcommand)]
    Accounts(Accounts),
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
    /// Runs programs for gateways on other machines, behind TLS with certificates on both sides, and has no other power.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Examples:
  ringfence sandbox-host keys tls --server-name sandbox-host
  ringfence sandbox-host sandbox-host.toml --check
  ringfence sandbox-host sandbox-host.toml"
    )]
    SandboxHost {
        #[command(subcommand)]
        command: Option<SandboxHost>,
        /// Its file, or the folder with `sandbox-host.toml`.
        #[arg(required = true)]
        file: Option<PathBuf>,
        /// Reports all problems of the file, and serves nobody.
        #[arg(long)]
        check: bool,
        /// How the log is written to standard error.
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
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

#[derive(Args)]
pub(crate) struct LoginAsking {
    /// The address of the gateway's `/mcp`, or a project's folder.
    pub(crate) gateway: String,
    /// The OAuth client to log in with; one is registered where this is left out.
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// A scope to ask for; all that the gateway names where this is left out.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// The issuer to log in at, where the gateway trusts several, or one at a private address.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
    /// Opens no browser: the address is printed in any case.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
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
        #[arg(long, value_parser = ["intent", "refused", "labelled", "egress", "outcome", "artifact_read", "rejected", "opened", "closed", "run_started", "run_revoked"])]
        kind: Option<String>,
        /// Only this tool.
        #[arg(long)]
        tool: Option<String>,
        /// Only this call.
        #[arg(long)]
        call: Option<String>,
        /// Only this run.
        #[arg(long)]
        run: Option<String>,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Runs {
    /// Lists runs, newest first.
    #[command(after_help = "Example:\n  ringfence runs list my-agents --live")]
    List {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Only those of this agent, by its OAuth client.
        #[arg(long)]
        agent: Option<String>,
        /// Only those of this user.
        #[arg(long)]
        user: Option<String>,
        /// Only those that go on.
        #[arg(long)]
        live: bool,
        /// Prints one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Shows one run: who acts for whom, for what, with which tools and until when.
    #[command(
        after_help = "Example:\n  ringfence runs show run-0192f0c17b1e7c3a9f003b1f5a2c4d6e --project my-agents"
    )]
    Show {
        /// Its name.
        run: String,
        #[command(flatten)]
        project: ProjectFolder,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Revokes runs: from then on no call of theirs starts, and within a second their programs are dead.
    #[command(
        group = clap::ArgGroup::new("what").required(true),
        after_help = "Examples:
  ringfence runs revoke --run run-0192f0c17b1e7c3a9f003b1f5a2c4d6e --reason 'it looks odd'
  ringfence runs revoke --user bob --reason 'a lost laptop'
  ringfence runs revoke --everything --reason 'an incident'"
    )]
    Revoke(Revoke),
}

#[derive(Args)]
pub(crate) struct Revoke {
    /// One run.
    #[arg(long, group = "what")]
    pub(crate) run: Option<String>,
    /// All runs of this agent, by its OAuth client.
    #[arg(long, group = "what")]
    pub(crate) agent: Option<String>,
    /// All runs of this user.
    #[arg(long, group = "what")]
    pub(crate) user: Option<String>,
    /// The issuer that vouches for the user, where the project trusts several.
    #[arg(long, requires = "user")]
    pub(crate) issuer: Option<String>,
    /// All runs.
    #[arg(long, group = "what")]
    pub(crate) everything: bool,
    /// Why: it stands in the journal.
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) project: ProjectFolder,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Accounts {
    /// Lists who has connected an account, and where.
    #[command(after_help = "Example:\n  ringfence accounts list my-agents --json | jq '.accounts[].subject'")]
    List {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Ends a connection: from then on no call uses the account, also of a gateway that runs.
    #[command(
        after_help = "Example:\n  ringfence accounts disconnect --user bob --system crm --project my-agents"
    )]
    Disconnect {
        /// The user, as the issuer names them (`sub`).
        #[arg(long)]
        user: String,
        /// The system.
        #[arg(long)]
        system: String,
        #[command(flatten)]
        project: ProjectFolder,
    },
}

#[derive(Subcommand)]
pub(crate) enum Sandbox {
    /// Runs one program and is gone: what it writes and its exit code pass through.
    #[command(after_help = "Examples:
  echo 'print(6*7)' | ringfence sandbox run
  ringfence sandbox run --language bash --seconds 5 script.sh
  ringfence sandbox run --file data.csv analyse.py        # found as /work/in/data.csv
  ringfence sandbox run --artifacts out plot.py           # what it leaves in /artifacts
  ringfence sandbox run --profile python --project my-agents analyse.py

Exit codes: the program's own; 124 when its time was up, 137 for want of memory, 125 when it wrote too much or was killed;
2 when the sandbox could not be built as its profile says, and nothing ran.")]
    Run(SandboxRun),
}

#[derive(Subcommand)]
pub(crate) enum SandboxHost {
    /// Makes an authority and a certificate for each side, each private key for its owner alone.
    Keys {
        /// The folder.
        dir: PathBuf,
        /// The name that the host's certificate is for.
        #[arg(long, default_value = "sandbox-host")]
        server_name: String,
        /// How long they are good for.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

#[derive(Args)]
pub(crate) struct SandboxRun {
    /// The program; `-` for standard input.
    #[arg(default_value = "-")]
    pub(crate) program: PathBuf,
    /// What it is written in; Python where neither this nor a profile says so.
    #[arg(long, value_enum, conflicts_with = "profile")]
    pub(crate) language: Option<SandboxLanguage>,
    /// A sandbox of a project, by its name there: `[systems.NAME]`. What it says holds; the limits below only narrow it.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The project of the profile.
    #[arg(long, value_name = "DIR", default_value = ".", requires = "profile")]
    pub(crate) project: PathBuf,
    /// How long it may take; 30 seconds without a profile.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: Option<u64>,
    /// How much memory it may have, in MiB; 512 without a profile.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: Option<u64>,
    /// How many processes and threads it may have; 128 without a profile.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) processes: Option<u64>,
    /// A file that it finds in `/work/in`.
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A folder for what it leaves in `/artifacts`; made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) artifacts: Option<PathBuf>,
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
