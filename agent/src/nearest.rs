//! The nearest known name to one that is not known.

/// From this similarity on (0: nothing in common, 1: equal) a name is suggested.
const SIMILAR: f64 = 0.5;

/// `; did you mean `runc`?`, or nothing when no name is near.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(suggestion("rnuc", ["runc", "gvisor"]), "; did you mean `runc`?");
        assert_eq!(suggestion("something-else", ["runc", "gvisor"]), "");
    }
}
