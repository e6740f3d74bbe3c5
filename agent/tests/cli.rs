//! The built program: exit statuses, what goes to which stream, and what it says of mistakes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn distwatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distwatch"));
    for variable in ["DISTWATCH_CONFIG", "DISTWATCH_LOG", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    distwatch().args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

fn file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("it can be written");
    path.to_str().expect("it is text").to_owned()
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for arguments in [&["nonsense"][..], &["analyze"], &["rules", "--nonsense"], &["config"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["-h"], &["--version"], &["help", "analyze"], &["config", "check", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_right_policy_is_ok() {
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures/policy.toml");
    let output = run(&["config", "check", policy]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{policy}: ok\n").as_str()));
    assert!(output.stderr.is_empty());
}

#[test]
fn all_mistakes_of_all_files_are_told_before_it_ends_with_2() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let right = file(directory.path(), "right.toml", "");
    let one = file(directory.path(), "one.toml", "[network]\nisolatd = []\n[tls]\nexpiry_days = \"x\"\n");
    let two = file(directory.path(), "two.toml", "[epmd\n");
    let output = run(&["config", "check", &one, &right, &two]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), format!("{right}: ok\n").as_str()));
    let errors = text(&output.stderr);
    assert!(errors.starts_with(&format!("error: {one} has 2 mistakes\n")), "{errors}");
    assert!(
        errors.contains(&format!("\n{one}:2:1: `isolatd` is not a key of [network]\n    did you mean")),
        "{errors}"
    );
    assert!(errors.contains(&format!("\n{one}:4:15: tls.expiry_days: ")), "{errors}");
    assert!(errors.contains(&format!("\n{two}:1:6: ")), "{errors}");
}

#[test]
fn a_wrong_policy_ends_analyze_with_2() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let wrong = file(directory.path(), "wrong.toml", "[tls]\nrequired = 1\n");
    let output = run(&["analyze", "-c", &wrong, "none.pcap"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("wrong.toml:2:12: tls.required"), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn the_policy_of_the_flag_goes_over_that_of_the_environment() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let flag = file(directory.path(), "flag.toml", "[tls]\nexpiry_days = 11\n");
    let environment = file(directory.path(), "environment.toml", "[tls]\nexpiry_days = 22\n");
    let show = |arguments: &[&str], variable: &str| {
        let output = distwatch().args(arguments).env("DISTWATCH_CONFIG", variable).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    assert!(show(&["config", "show", "-c", &flag], &environment).contains("\nexpiry_days = 11\n"));
    assert!(show(&["config", "show"], &environment).contains("\nexpiry_days = 22\n"));
    assert!(show(&["config", "show"], "").contains("\nexpiry_days = 30\n"));
    assert_eq!(show(&["config", "check"], &environment), format!("{environment}: ok\n"));
}

#[test]
fn nothing_to_check_is_wrong_usage() {
    let output = run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("\nhint: name one"), "{}", text(&output.stderr));
}

#[test]
fn what_it_prints_to_begin_with_is_right() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    for command in ["example", "show"] {
        let output = run(&["config", command]);
        assert_eq!(output.status.code(), Some(0));
        let path = file(directory.path(), command, text(&output.stdout));
        assert_eq!(run(&["config", "check", &path]).status.code(), Some(0), "{command}");
    }
    let schema: serde_json::Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).expect("it is JSON");
    assert_eq!(schema["properties"]["tls"]["properties"]["expiry_days"]["default"], 30);
}

#[test]
fn every_rule_can_be_explained_and_an_unknown_one_ends_with_2() {
    let output = run(&["rules", "--format", "json"]);
    let rules: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("it is JSON");
    for rule in &rules {
        let id = rule["id"].as_str().expect("it has one");
        let output = run(&["rules", id]);
        assert_eq!(output.status.code(), Some(0), "{id}");
        assert!(text(&output.stdout).starts_with(id), "{id}");
    }
    let output = run(&["rules", "no-such-rule"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    assert!(errors.starts_with("error: there is no rule \"no-such-rule\"\nhint: "), "{errors}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    for arguments in [&["config", "example"][..], &["config", "schema"], &["completions", "zsh"], &["rules"], &["man"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let output = distwatch().args(arguments).stdout(writer).output().expect("it starts");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn color_is_for_terminals_unless_it_is_asked_for() {
    let errors = |arguments: &[&str]| text(&run(arguments).stderr).to_owned();
    assert!(!errors(&["rules", "no-such-rule"]).contains('\x1b'));
    assert!(errors(&["rules", "no-such-rule", "--color", "always"]).contains("\x1b["));
}

#[test]
fn completions_and_manual_pages_can_be_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("analyze"), "{shell}");
    }
    let directory = tempfile::tempdir().expect("a directory can be made");
    let pages = directory.path().join("man");
    assert_eq!(run(&["man", "--dir", pages.to_str().expect("it is text")]).status.code(), Some(0));
    assert!(pages.join("distwatch-analyze.1").exists());
}

#[test]
fn a_filter_that_is_none_is_told_and_does_not_stop_the_work() {
    let output = distwatch().args(["config", "show"]).env("DISTWATCH_LOG", "a=b=c=").output().expect("it starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("DISTWATCH_LOG is not a filter"), "{}", text(&output.stderr));
}
