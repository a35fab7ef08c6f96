//! What commands print: results on standard output, messages on standard error, colours only on a terminal.

use std::path::Path;

use owo_colors::OwoColorize as _;
use ringfence_core::{Level, Problem};
use serde::Serialize;

/// One JSON object, in full.
pub(crate) fn json(value: &impl Serialize) {
    anstream::println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// One JSON object in one line.
pub(crate) fn json_line(value: &impl Serialize) {
    anstream::println!("{}", serde_json::to_string(value).unwrap_or_default());
}

/// A problem as editors can read it, with the line that it is about.
pub(crate) fn problem(folder: &Path, problem: &Problem) {
    let place = &problem.place;
    let word = match problem.level {
        Level::Error => "error".red().bold().to_string(),
        Level::Warn => "warning".yellow().bold().to_string(),
        Level::Note => "note".cyan().bold().to_string(),
    };
    anstream::eprintln!("{}: {word}: {}", place.bold(), problem.what);
    let text = std::fs::read_to_string(folder.join(&place.file)).unwrap_or_default();
    if let Some(line) = text.lines().nth(place.line.saturating_sub(1)).filter(|line| !line.trim().is_empty())
    {
        let number = place.line.to_string();
        // Tabs keep their width above the mark.
        let before: String = line
            .chars()
            .take(place.column.saturating_sub(1))
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        anstream::eprintln!("  {} {line}", format!("{number} |").dimmed());
        anstream::eprintln!(
            "  {} {before}{}",
            format!("{} |", " ".repeat(number.len())).dimmed(),
            "^".bold()
        );
    }
    anstream::eprintln!("  {} {}", "help:".cyan(), problem.instead);
}

/// A text that an agent may have chosen, fit for a terminal: what moves the cursor, changes colours or turns the direction of
/// writing is shown as its escape.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |char: char| {
        let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || turns { char.escape_unicode().to_string() } else { char.to_string() }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_an_agent_chose_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{9b}31m\u{202e}c\n"), "a\\u{1b}[2Jb\\u{9b}31m\\u{202e}c\\u{a}");
        assert_eq!(harmless("Zoë 東京 {\"a\":1}"), "Zoë 東京 {\"a\":1}");
    }
}
