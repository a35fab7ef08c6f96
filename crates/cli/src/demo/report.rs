//! What was tried and what came of it: a table that grows while the script runs, or one JSON object at the end.

use owo_colors::OwoColorize as _;
use ringfence_sandbox::probe;
use serde::Serialize;

use crate::print;

const WIDTHS: [usize; 3] = [52, 5, 60];

/// The report. Its field names are those of `--json`.
#[derive(Serialize)]
pub(super) struct Report {
    /// Tool calls that were sent.
    calls: u64,
    /// Calls that the gateway let act: those with an intent in its journal.
    pub(super) effects_allowed: u64,
    attacks_tried: u64,
    attacks_through: u64,
    /// Useful work that was stopped.
    useful_stopped: u64,
    /// What a call takes beyond its system's own time, client to client: the median of the reads, in microseconds.
    pub(super) overhead_median_us: u64,
    attempts: Vec<Attempt>,
    #[serde(skip)]
    as_json: bool,
}

/// One thing that was tried.
#[derive(Serialize)]
pub(super) struct Attempt {
    pub(super) tried: String,
    #[serde(rename = "as")]
    pub(super) user: String,
    /// What happened.
    pub(super) outcome: String,
    /// The wall that stopped it; none for what was allowed.
    pub(super) wall: Option<String>,
    pub(super) attack: bool,
    /// Whether it went wrong: an attack that had its effect, or useful work that had none.
    pub(super) wrong: bool,
}

impl Report {
    pub(super) fn new(as_json: bool) -> Self {
        if !as_json {
            anstream::println!(
                "A rogue reasoning engine calls tools over MCP, in the name of Bob and then of Alice, the CEO.\n"
            );
            let head = row(["tried", "as", "what happened"], "stopped by");
            anstream::println!("{}", head.bold());
        }
        Self {
            calls: 0,
            effects_allowed: 0,
            attacks_tried: 0,
            attacks_through: 0,
            useful_stopped: 0,
            overhead_median_us: 0,
            attempts: Vec::new(),
            as_json,
        }
    }

    pub(super) fn count_call(&mut self) {
        self.calls += 1;
    }

    pub(super) fn add(&mut self, attempt: Attempt) {
        self.attacks_tried += u64::from(attempt.attack);
        self.attacks_through += u64::from(attempt.attack && attempt.wrong);
        self.useful_stopped += u64::from(!attempt.attack && attempt.wrong);
        if !self.as_json {
            let wall = attempt.wall.as_deref().unwrap_or("-");
            let line = row([&attempt.tried, &attempt.user, &attempt.outcome], wall);
            match (attempt.attack, attempt.wrong) {
                (_, true) => anstream::println!("{}  <- wrong", line.red().bold()),
                (true, false) => anstream::println!("{line}"),
                (false, false) => anstream::println!("{}", line.green()),
            }
        }
        self.attempts.push(attempt);
    }

    /// Prints what is left to print. Whether every attack was stopped, and something was tried at all.
    pub(super) fn finish(self) -> bool {
        if self.as_json {
            print::json(&self);
        } else {
            self.summary();
        }
        self.attacks_tried > 0 && self.attacks_through == 0 && self.useful_stopped == 0
    }

    fn summary(&self) {
        anstream::println!();
        anstream::println!("calls               {:>6}", self.calls);
        anstream::println!("effects allowed     {:>6}", self.effects_allowed);
        anstream::println!("attacks tried       {:>6}", self.attacks_tried);
        anstream::println!("attacks through     {:>6}", self.attacks_through);
        anstream::println!(
            "overhead, median    {:>6} µs a call, client to client, with token, policy and journal",
            self.overhead_median_us
        );
        if probe().cgroup.is_none() {
            anstream::println!(
                "\nThis user can make no cgroup here: the sandbox held each process by itself (`resources = \"rlimits\"`), which is weaker."
            );
        }
        if self.attacks_through == 0 && self.useful_stopped == 0 {
            anstream::println!("\n{}", "Nothing got through, and the useful work was done.".green().bold());
        } else {
            let what = format!(
                "{} attacks got through, {} useful calls were stopped.",
                self.attacks_through, self.useful_stopped
            );
            anstream::println!("\n{}", what.red().bold());
        }
    }
}

fn row(cells: [&str; 3], last: &str) -> String {
    let cell = |(text, width): (&str, usize)| {
        let is_long = text.chars().count() > width;
        let shown: String = text.chars().take(if is_long { width - 1 } else { width }).collect();
        format!("{:<width$}", if is_long { shown + "…" } else { shown })
    };
    let cells: Vec<String> = cells.into_iter().zip(WIDTHS).map(cell).collect();
    format!("{}  {last}", cells.join("  "))
}
