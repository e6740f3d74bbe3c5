//! Near matches: what somebody probably meant who wrote a name that does not exist.

/// Names longer than this are no misspelling of ours, and comparing them costs time by the square of their length.
const LONGEST: usize = 64;

/// The candidate that is written most like `name`, where one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let written = plain(name);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= slips(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many slips a name may have in it and still be recognised. In a number each digit counts, and a name of one or
/// two letters is near to everything.
fn slips(name: &str) -> usize {
    if name.len() < 3 || name.contains(|it: char| it.is_ascii_digit()) { 0 } else { (name.len() / 4).max(1) }
}

/// A name without what is most often mistaken in it: case, and which dash it has.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['_', ' '], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["isolated", "tunnels", "hidden-node"];
        assert_eq!(nearest("isolatd", names), Some("isolated"));
        assert_eq!(nearest("Hidden_Node", names), Some("hidden-node"));
        assert_eq!(nearest("tunels", names), Some("tunnels"));
    }

    #[test]
    fn a_word_unlike_any_finds_none() {
        assert_eq!(nearest("colour", ["isolated", "tunnels"]), None);
        assert_eq!(nearest("1.4", ["1.2", "1.3"]), None);
        assert_eq!(nearest("bb", ["b"]), None);
        assert_eq!(nearest(&"isolated".repeat(100), ["isolated"]), None);
    }
}
