//! The nearest known names to one that is unknown.

/// Below this similarity (0 to 1) a name is no help.
const SIMILARITY_MIN: f64 = 0.6;

/// At most `most` of `known` that resemble `wanted`, best first.
pub(crate) fn of<'a>(wanted: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let near = ranked(wanted, known).into_iter().filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    near.take(most).map(|(_, name)| name).collect()
}

/// All of `known` with their similarity to `wanted`, best first.
pub(crate) fn ranked<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<(f64, &'a str)> {
    let wanted: String = wanted.chars().take(64).collect::<String>().to_ascii_lowercase();
    let mut ranked: Vec<(f64, &str)> = known.map(|name| (similarity(&wanted, name), name)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    ranked
}

/// The better of two views: the spelling as a whole, and the words that both share (`metrics_of_user`, `get_user_metrics`).
fn similarity(wanted: &str, name: &str) -> f64 {
    let spelling = strsim::normalized_levenshtein(wanted, name);
    let words = |text| str::split(text, ['_', '-', ' ', '.']);
    let shared =
        words(name).filter(|word| word.len() > 2 && words(wanted).any(|other| other == *word)).count();
    let most = words(wanted).count().max(words(name).count()).max(1);
    #[expect(clippy::cast_precision_loss, reason = "names have a handful of words")]
    let overlap = shared as f64 / most as f64;
    spelling.max(overlap)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_that_are_spelled_alike_or_share_words_are_near() {
        let known = ["get_user_monthly_metrics", "run_python", "close_ticket"];
        let near = |wanted| super::of(wanted, known.into_iter(), 2).join(" ");
        assert_eq!(near("get_user_monthly_metric"), "get_user_monthly_metrics");
        assert_eq!(near("user_metrics_monthly"), "get_user_monthly_metrics");
        assert_eq!(near("runpython"), "run_python");
        assert_eq!(near("execute_sql"), "");
        assert_eq!(super::ranked("execute_sql", known.into_iter()).len(), 3, "ranked all the same");
    }
}
