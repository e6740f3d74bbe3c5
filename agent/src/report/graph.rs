//! Who is linked to whom, as a graph for Graphviz or Mermaid. Clear text is red and says so; attempts are dashed.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use distwatch_engine::model::{Answer, End, Transport};
use indexmap::IndexSet;

use super::Report;
use super::group::{Group, Reach, address, groups, outcome, transport};
use super::text::printable;

/// The languages of graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Graphviz.
    Dot,
    /// Mermaid, as Markdown renderers take it.
    Mermaid,
}

/// Writes the graph.
///
/// # Errors
/// What `out` says.
pub fn write(report: &Report, language: Language, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let graph = Graph::of(report);
    match language {
        Language::Dot => graph.dot(&mut out)?,
        Language::Mermaid => graph.mermaid(&mut out)?,
    }
    out.flush()
}

struct Graph<'a> {
    /// Labels; the place is the id.
    vertices: IndexSet<Cow<'a, str>>,
    edges: Vec<Edge>,
}

struct Edge {
    from: usize,
    to: usize,
    label: String,
    look: Look,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Cleartext,
    Tls,
    Unknown,
    Attempt,
}

impl Look {
    const fn colour(self) -> &'static str {
        match self {
            Self::Cleartext => "#c62828",
            Self::Tls => "#2e7d32",
            Self::Unknown => "#616161",
            Self::Attempt => "#ef6c00",
        }
    }
}

impl<'a> Graph<'a> {
    fn of(report: &'a Report) -> Self {
        let mut vertices: IndexSet<Cow<'a, str>> =
            report.nodes.iter().map(|node| Cow::Borrowed(node.name.as_str())).collect();
        let mut edges = Vec::new();
        for group in groups(&report.links) {
            let (initiator, acceptor) = (&group.link.initiator, &group.link.acceptor);
            let (from, _) = vertices.insert_full(vertex(initiator, || initiator.ip.to_string()));
            let (to, _) = vertices.insert_full(vertex(acceptor, || address(acceptor)));
            edges.push(Edge { from, to, label: label(&group), look: look(&group) });
        }
        Self { vertices, edges }
    }

    fn dot(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "digraph distribution {{")?;
        writeln!(out, "  rankdir=LR;")?;
        writeln!(out, "  node [shape=box, style=rounded];")?;
        for (id, name) in self.vertices.iter().enumerate() {
            writeln!(out, "  n{id} [label={}];", dot_string(name))?;
        }
        for Edge { from, to, label, look } in &self.edges {
            let (colour, style) = (look.colour(), if *look == Look::Attempt { "dashed" } else { "solid" });
            let label = dot_string(label);
            writeln!(
                out,
                "  n{from} -> n{to} [label={label}, color=\"{colour}\", fontcolor=\"{colour}\", style={style}];"
            )?;
        }
        writeln!(out, "}}")
    }

    fn mermaid(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "flowchart LR")?;
        for (id, name) in self.vertices.iter().enumerate() {
            writeln!(out, "  n{id}[\"{}\"]", mermaid_text(name))?;
        }
        for Edge { from, to, label, look } in &self.edges {
            let arrow = if *look == Look::Attempt { "-.->" } else { "-->" };
            writeln!(out, "  n{from} {arrow}|\"{}\"| n{to}", mermaid_text(label))?;
        }
        for (number, edge) in self.edges.iter().enumerate() {
            let colour = edge.look.colour();
            writeln!(out, "  linkStyle {number} stroke:{colour},color:{colour}")?;
        }
        Ok(())
    }
}

fn vertex<'a>(end: &'a End, address: impl FnOnce() -> String) -> Cow<'a, str> {
    end.node.as_deref().map_or_else(|| Cow::Owned(address()), Cow::Borrowed)
}

fn look(group: &Group<'_>) -> Look {
    match (group.reach, group.link.transport) {
        (Reach::Attempt | Reach::Foreign, _) => Look::Attempt,
        (_, Transport::Cleartext) => Look::Cleartext,
        (_, Transport::Tls) => Look::Tls,
        (_, Transport::Unknown) => Look::Unknown,
    }
}

fn label(group: &Group<'_>) -> String {
    let mut label = match group.link.transport {
        Transport::Cleartext => "CLEAR TEXT".to_owned(),
        _ => transport(group.link),
    };
    match group.link.tls.as_ref().map(|tls| tls.mutual_auth) {
        Some(Answer::Yes) => label.push_str(", mutual"),
        Some(Answer::No) => label.push_str(", no client certificate"),
        Some(Answer::Unknown) | None => {}
    }
    if group.reach != Reach::Established {
        label.push_str(": ");
        label.push_str(outcome(group.link));
    }
    if group.count > 1 {
        label.push_str(&format!(" x{}", group.count));
    }
    label
}

/// A quoted string of the DOT language: the backslash too is doubled, for it begins escapes such as `\N` in labels.
fn dot_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in printable(text).chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Graphviz decodes HTML entities in every label.
            '&' => quoted.push_str("&amp;"),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The inside of a quoted text of Mermaid. It has no escape but its own entities (`#34;`), and whatever it shows is HTML and
/// Markdown: everything that is not plainly harmless becomes an entity.
fn mermaid_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in printable(text).chars() {
        if character.is_alphanumeric() || " @.:,-".contains(character) {
            safe.push(character);
        } else {
            safe.push_str(&format!("#{};", u32::from(character)));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report, language: Language) -> String {
        let mut out = Vec::new();
        write(report, language, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_graphs_are_printed_as_the_golden_files_have_them() {
        sample::golden("graph.dot", &text(&sample::report(), Language::Dot));
        sample::golden("graph.mmd", &text(&sample::report(), Language::Mermaid));
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        let dot = text(&sample::hostile(), Language::Dot);
        for line in dot.lines().filter(|line| line.contains("label=")) {
            let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
            assert_eq!(quotes % 2, 0, "{line}");
            assert!(line.ends_with("];"), "{line}");
        }
        let mermaid = text(&sample::hostile(), Language::Mermaid);
        for line in mermaid.lines().skip(1) {
            assert!(["  n", "  linkStyle "].iter().any(|start| line.starts_with(start)), "{line}");
            assert!(matches!(line.matches('"').count(), 0 | 2), "{line}");
            assert!(!line.contains(['<', '`', '\\', '\u{202e}']), "{line}");
        }
        let lines = |report: &Report| text(report, Language::Mermaid).lines().count();
        let mut plain = sample::hostile();
        plain.nodes.iter_mut().for_each(|node| node.name = "a@h".into());
        plain.links.iter_mut().for_each(|link| link.initiator.node = Some("a@h".into()));
        assert_eq!(lines(&sample::hostile()), lines(&plain), "a name makes no lines");
    }

    #[test]
    fn quoting_is_that_of_the_language() {
        assert_eq!(dot_string("a\"b\\N&lt;\n"), r#""a\"b\\N&amp;lt;\\u{a}""#);
        assert_eq!(mermaid_text("a\"]-->|<b>#quot;`"), "a#34;#93;--#62;#124;#60;b#62;#35;quot#59;#96;");
        assert_eq!(mermaid_text("böse@host-a"), "böse@host-a");
    }

    #[test]
    fn an_empty_report_is_an_empty_graph() {
        assert_eq!(text(&Report::default(), Language::Mermaid), "flowchart LR\n");
    }
}
