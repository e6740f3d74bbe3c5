//! The manual page of the configuration file, `distwatch.toml(5)`: the commented example, set as a page.

use std::fmt::Write as _;

/// The page, in the language of `man`. What it says of keys is what the example says.
#[must_use]
pub(super) fn manual(example: &str) -> String {
    let mut page = format!(
        ".TH distwatch.toml 5 \"\" \"distwatch {}\" \"File Formats\"\n\
         .SH NAME\ndistwatch.toml \\- configuration of distwatch(1): what a network is like, and what the daemon needs\n\
         .SH SYNOPSIS\n/etc/distwatch/distwatch.toml\n.SH DESCRIPTION\n\
         The file is TOML, and every key may be left out. Keys that do not exist are mistakes; \\fBdistwatch config check\\fR reports \
         all mistakes of a file with their lines. \\fBdistwatch analyze \\-c\\fR takes the same file.\n.SH SECTIONS\n",
        env!("CARGO_PKG_VERSION")
    );
    let (mut prose, mut default) = (Vec::new(), None);
    // The lines above the first empty one tell what the file is.
    for line in example.lines().skip_while(|line| !line.is_empty()) {
        let text = line.strip_prefix("# ");
        if let Some(words) = text.and_then(|text| text.strip_prefix("Default: ")) {
            default = Some(words.to_owned());
        } else if let Some(text) = text {
            // A default that goes on in the next line is still the default.
            match &mut default {
                Some(words) => *words = format!("{words} {text}"),
                None => prose.push(text),
            }
        } else if !line.is_empty() {
            write_entry(line.trim_start_matches('#'), &prose.join(" "), default.take().as_deref(), &mut page);
            prose.clear();
        }
    }
    page.push_str(
        ".SH FILES\n/etc/distwatch/distwatch.toml is what the daemon of the packages reads, and reads anew when it is told to reload.\n\
         .SH SEE ALSO\n\\fBdistwatch\\fR(1), \\fBdistwatch\\-config\\fR(1), \\fBdistwatch\\-rules\\fR(1)\n",
    );
    page
}

/// A section's header, or a key with its value.
fn write_entry(entry: &str, prose: &str, default: Option<&str>, page: &mut String) {
    let _ = match entry.split_once(" = ").filter(|_| !entry.starts_with('[')) {
        None => writeln!(page, ".SS \"{}\"\n{}", quoted(entry), escaped(prose)),
        Some((key, value)) => {
            let (what, value) = (if default.is_some() { "Example" } else { "Default" }, escaped(value));
            let default = default.map_or(String::new(), |words| format!("Default: {}\n.br\n", escaped(words)));
            writeln!(page, ".TP\n\\fB{}\\fR\n{}\n.br\n{default}{what}: \\f(CW{value}\\fR", escaped(key), escaped(prose))
        }
    };
}

/// A text that stands as it is: a line may begin with what would be a request, and hyphens stay such.
fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// The same between quotation marks.
fn quoted(text: &str) -> String {
    escaped(text).replace('"', "\\(dq")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn sections_and_keys_are_told_with_their_defaults() {
        let page = manual(
            "# What the file is.\n\n# Where it is.\n[place]\n# How far\n# it goes.\n#far = \"1-2\"\n\n# Who.\n# Default: nobody\n# at all\n#who = [\"a\"]\n",
        );
        let (_, sections) = page.split_once(".SH SECTIONS\n").expect("there are some");
        let (sections, _) = sections.split_once(".SH FILES").expect("they end");
        assert_eq!(
            sections,
            ".SS \"[place]\"\nWhere it is.\n.TP\n\\fBfar\\fR\nHow far it goes.\n.br\nDefault: \\f(CW\"1\\-2\"\\fR\n\
             .TP\n\\fBwho\\fR\nWho.\n.br\nDefault: nobody at all\n.br\nExample: \\f(CW[\"a\"]\\fR\n"
        );
    }

    #[test]
    fn every_key_of_the_example_is_on_the_page() {
        let example = config::example();
        let page = manual(&example);
        let keys = example.lines().filter(|line| !line.starts_with("# ") && line.contains(" = ")).count();
        assert!(keys > 40);
        assert_eq!(page.matches("\n.TP\n").count(), keys);
        let sections = example.lines().filter(|line| line.trim_start_matches('#').starts_with('[')).count();
        assert_eq!(page.matches("\n.SS ").count(), sections);
    }
}
