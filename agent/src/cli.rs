//! The command line. All of clap is in this file; the rest of the program sees plain values.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use distwatch_engine::model::Severity;
use distwatch_engine::policy::Arguments;

use crate::config::{self, BackEnd, ConfigErrors, Loaded};

/// Watches Erlang distribution and EPMD, and says what breaks the guideline.
///
/// Reads the connections between Erlang nodes (Erlang, Elixir and every other language of the BEAM) and those to
/// the port mapper EPMD, and reports what the Erlang Ecosystem Foundation's guideline "Distribution Protocol and
/// EPMD" advises against: distribution in clear, ports that can be reached from outside, strangers in the cluster,
/// guessed cookies, remote shells and commands.
#[derive(Debug, Parser)]
#[command(name = "distwatch", version, max_term_width = 100, after_long_help = EXIT_STATUS)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    done, and a finding reached --fail-on
  2    wrong usage or configuration
  3    no permission, or nothing to capture from
  4    an input file is damaged; what could be read of it is reported
  130  interrupted

Environment:
  DISTWATCH_CONFIG  the policy file, where -c is not given
  DISTWATCH_LOG     what is logged, as a filter: \"debug\", \"distwatch_engine=trace\"
  NO_COLOR, CLICOLOR_FORCE  no colour, or colour also into a file or pipe";

/// What holds for every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Globals {
    /// Log more to standard error: -v what is done, -vv every connection
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet", display_order = 900)]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, display_order = 901)]
    pub quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, display_order = 902)]
    pub color: Color,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set; anywhere if CLICOLOR_FORCE is
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Globals {
    /// Whether what goes to standard output may be coloured.
    #[must_use]
    pub fn color_stdout(&self) -> bool {
        self.color.decide(|name| std::env::var(name).ok(), io::stdout().is_terminal())
    }

    /// Whether what goes to standard error may be coloured.
    #[must_use]
    pub fn color_stderr(&self) -> bool {
        self.color.decide(|name| std::env::var(name).ok(), io::stderr().is_terminal())
    }
}

impl Color {
    /// The flag goes over the environment, and the environment over what the output is.
    /// (<https://no-color.org>, <https://bixense.com/clicolors>)
    fn decide(self, variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
        let set = |name| variable(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto if set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").as_deref() != Some("0") => true,
            Self::Auto => is_terminal && variable("TERM").as_deref() != Some("dumb"),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read captures and report what was seen in them
    ///
    /// Reads pcap and pcapng files, also compressed with gzip or zstd, as one timeline. Needs no privilege, and opens
    /// no connection. Without a policy, loopback counts as isolated and everything else does not.
    #[command(after_help = ANALYZE_EXAMPLES)]
    Analyze(AnalyzeArgs),
    /// Watch this host: capture, judge and write records until a signal ends it
    ///
    /// Writes one JSON record a line to standard output, or readable lines where that is a terminal. SIGHUP loads the
    /// configuration anew (a bad one changes nothing), SIGTERM and SIGINT bring all findings to their last state and end it.
    /// Once everything is open, what is not needed any more is given up: capabilities, files (Landlock), system calls (seccomp).
    /// By eBPF it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, by libpcap CAP_NET_RAW.
    Run(RunArgs),
    /// Ask the running daemon how it is
    Status(StatusArgs),
    /// Say what works on this host, what does not, and what to do about it
    ///
    /// Looks at the kernel, its switches and this user's rights, and tries both ways to capture for a moment. Exits with
    /// status 3 where neither works.
    Doctor(DoctorArgs),
    /// Check, show or begin a policy file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List the rules, or explain one of them
    Rules(RulesArgs),
    /// Print the JSON Schema of what `analyze` prints
    Schema(SchemaArgs),
    /// List or write out the dashboards, alert rules, unit file and schemas that come with the program
    #[command(subcommand)]
    Assets(AssetsCommand),
    /// Print a script that completes commands and options in a shell
    ///
    /// For example: distwatch completions bash > /usr/share/bash-completion/completions/distwatch
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Write one page for each command into this directory, instead of the main page to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

const ANALYZE_EXAMPLES: &str = "\
Examples:
  distwatch analyze capture.pcap
  distwatch analyze -c policy.toml --fail-on high monday.pcapng.zst tuesday.pcapng.zst
  tcpdump -i any -w - tcp | distwatch analyze --format ndjson -
  distwatch analyze --graph dot capture.pcap | dot -Tsvg > links.svg";

/// Which policy holds.
#[derive(Clone, Debug, Default, Args)]
pub struct PolicyArgs {
    // `OsString`, since a path may not be empty and an empty variable means that none is set.
    /// The policy file; the defaults hold without one
    #[arg(short = 'c', long = "config", value_name = "POLICY", env = "DISTWATCH_CONFIG", hide_env_values = true)]
    config: Option<OsString>,
}

impl PolicyArgs {
    /// The policy file, by flag or environment.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.config.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    /// Loads it over the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        config::load(self.path())
    }
}

/// Options of `analyze`.
#[derive(Clone, Debug, Args)]
pub struct AnalyzeArgs {
    /// Which policy holds.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Print the links between nodes as a graph instead of the report
    #[arg(long, value_enum, value_name = "LANGUAGE", conflicts_with = "format")]
    pub graph: Option<Graph>,
    /// Exit with status 1 if there is a finding of this severity or above
    #[arg(long, value_name = "SEVERITY", value_parser = severity())]
    pub fail_on: Option<Severity>,
    /// With --format ndjson: also one line for each control message
    #[arg(long)]
    pub messages: bool,
    /// How much to print of the arguments of remote calls [default: what the policy says, else none]
    #[arg(long, value_enum, value_name = "HOW")]
    pub arguments: Option<Show>,
    /// Captures; `-` is standard input
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
}

impl AnalyzeArgs {
    /// Loads the policy, and lays over it what the command line says.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut loaded = self.policy.load()?;
        if let Some(arguments) = self.arguments {
            loaded.config.policy.arguments = arguments.into();
        }
        Ok(loaded)
    }
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Which configuration holds.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How packets are captured [default: what the configuration says, else auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub capture: Option<CaptureBy>,
    /// By eBPF: watch the sockets of this cgroup alone
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Interfaces by name or pattern, instead of those in the configuration
    #[arg(short, long = "interface", value_name = "GLOB")]
    pub interfaces: Vec<String>,
    /// The status socket, instead of the one in the configuration
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The folder of what is kept over a restart, instead of the one in the configuration
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the HTTP server listens, instead of what the configuration says; `off` is nowhere
    #[arg(long, value_name = "ADDRESS|off")]
    pub http: Option<HttpAt>,
    /// Keep all privileges once everything is open
    #[arg(long)]
    pub no_sandbox: bool,
    /// Do not start where a part of the sandbox cannot be had
    #[arg(long, conflicts_with = "no_sandbox")]
    pub sandbox_strict: bool,
}

/// Where the HTTP server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAt {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for HttpAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| "write an address and a port, as 127.0.0.1:9469 or [::1]:9469, or off")
    }
}

/// How packets are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureBy {
    /// By eBPF where the kernel takes it, else by libpcap
    Auto,
    /// By programs in the kernel
    Ebpf,
    /// By libpcap
    Pcap,
}

impl From<CaptureBy> for BackEnd {
    fn from(by: CaptureBy) -> Self {
        match by {
            CaptureBy::Auto => Self::Auto,
            CaptureBy::Ebpf => Self::Ebpf,
            CaptureBy::Pcap => Self::Pcap,
        }
    }
}

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Which configuration holds.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The daemon's socket, instead of the one in the configuration
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: TextOrJson,
}

/// Options of `doctor`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct DoctorArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: TextOrJson,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person
    #[default]
    Text,
    /// The whole report as one JSON object
    Json,
    /// One JSON record a line, as it was seen
    Ndjson,
}

/// The language of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Graph {
    /// Graphviz
    Dot,
    /// Mermaid, as Markdown viewers draw it
    Mermaid,
}

/// How much of the arguments of remote calls is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// Nothing
    None,
    /// Types and sizes
    Types,
    /// The terms: the application's data
    Full,
}

impl From<Show> for Arguments {
    fn from(show: Show) -> Self {
        match show {
            Show::None => Self::None,
            Show::Types => Self::Types,
            Show::Full => Self::Full,
        }
    }
}

/// Commands about the policy file.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check policy files, and report every mistake in them
    Check {
        // `OsString` for the same reason as in `PolicyArgs`.
        /// Policy files
        #[arg(value_name = "FILE", env = "DISTWATCH_CONFIG", hide_env_values = true)]
        files: Vec<OsString>,
    },
    /// Print what is in force, as a policy file
    ///
    /// Shows each value after the file has been laid over the defaults. Words that a cookie must not be are counted,
    /// not shown.
    Show(PolicyArgs),
    /// Print a policy file in which every key is explained and nothing is set
    Example,
    /// Print the JSON Schema of the policy file
    Schema,
}

/// Commands about what is shipped with the program.
#[derive(Debug, Subcommand)]
pub enum AssetsCommand {
    /// List what there is, and what each is for
    List,
    /// Write all of it into a folder
    ///
    /// Files that are there already as they should be are left alone; where one has other contents, nothing is written unless
    /// --force is given.
    Export {
        /// The folder; it is made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Overwrite files that have other contents
        #[arg(long)]
        force: bool,
    },
}

/// Options of `rules`.
#[derive(Clone, Debug, Default, Args)]
pub struct RulesArgs {
    /// The rule to explain
    pub id: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: TextOrJson,
}

/// How what is no report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TextOrJson {
    /// For a person
    #[default]
    Text,
    /// JSON
    Json,
}

/// Options of `schema`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct SchemaArgs {
    /// Of which output
    #[arg(value_enum, default_value_t)]
    pub of: SchemaOf,
}

/// The outputs that have a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// One line of `analyze --format ndjson`
    Records,
    /// `analyze --format json`
    #[default]
    Report,
}

/// Reads the command line. Help, the version and wrong usage end the program here, with status 0 or 2.
#[must_use]
pub fn read() -> Cli {
    try_read(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn try_read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(arguments)?;
    if let Command::Analyze(arguments) = &cli.command {
        let wrong = |message| Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        if arguments.messages && (arguments.format != Format::Ndjson || arguments.graph.is_some()) {
            return wrong("--messages needs --format ndjson: the other formats count the messages instead");
        }
        if arguments.captures.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return wrong("standard input (`-`) can be read only once");
        }
    }
    Ok(cli)
}

/// Writes a completion script.
///
/// # Errors
/// `out` fails.
pub fn write_completions(shell: clap_complete::Shell, out: &mut dyn Write) -> io::Result<()> {
    // Into memory first: the generator panics where its output fails, and a closed pipe is no error.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "distwatch", &mut script);
    out.write_all(&script)
}

/// Writes the main manual page.
///
/// # Errors
/// `out` fails.
pub fn write_manual(out: &mut dyn Write) -> io::Result<()> {
    clap_mangen::Man::new(Cli::command()).render(out)
}

/// Writes a manual page for each command into a directory.
///
/// # Errors
/// The directory cannot be written.
pub fn write_manuals(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
}

/// A severity by its name.
fn severity() -> impl TypedValueParser<Value = Severity> {
    // The parser lets nothing else through; the least severity only stands in for what cannot be.
    PossibleValuesParser::new(Severity::ALL.map(Severity::name))
        .map(|name| Severity::from_name(&name).unwrap_or(Severity::Info))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        try_read(line.split_whitespace().map(Into::into))
    }

    fn analyze(line: &str) -> AnalyzeArgs {
        match parse(line).expect("it is right").command {
            Command::Analyze(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn analyze_takes_what_the_contract_says() {
        let arguments = analyze("distwatch analyze -c p.toml --format ndjson --fail-on high --messages a.pcap -");
        assert_eq!(arguments.policy.path(), Some(Path::new("p.toml")));
        assert_eq!(arguments.format, Format::Ndjson);
        assert_eq!(arguments.fail_on, Some(Severity::High));
        assert!(arguments.messages);
        assert_eq!(arguments.captures, [Path::new("a.pcap"), Path::new("-")]);
        assert_eq!(analyze("distwatch analyze --graph mermaid a.pcap").graph, Some(Graph::Mermaid));
        assert_eq!(analyze("distwatch analyze a.pcap").format, Format::Text);
    }

    #[test]
    fn what_cannot_be_together_is_wrong_usage() {
        for line in [
            "distwatch",
            "distwatch analyze",
            "distwatch analyze --messages a.pcap",
            "distwatch analyze --format json --messages a.pcap",
            "distwatch analyze --format json --graph dot a.pcap",
            "distwatch analyze --fail-on urgent a.pcap",
            "distwatch analyze - -",
            "distwatch -v -q rules",
            "distwatch --color sometimes rules",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn commands_that_are_not_there_yet_are_wrong_usage() {
        for command in ["audit", "learn"] {
            assert_eq!(
                parse(&format!("distwatch {command}")).expect_err(command).kind(),
                ErrorKind::InvalidSubcommand,
                "{command}"
            );
        }
    }

    #[test]
    fn global_options_may_stand_behind_the_command() {
        let cli = parse("distwatch rules -vv --color never").expect("it is right");
        assert_eq!((cli.globals.verbose, cli.globals.color), (2, Color::Never));
    }

    #[test]
    fn the_flag_goes_over_the_environment_and_that_over_the_terminal() {
        let decide = |color: Color, variables: &[(&str, &str)], is_terminal| {
            let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            color.decide(value, is_terminal)
        };
        assert!(decide(Color::Auto, &[], true));
        assert!(!decide(Color::Auto, &[], false));
        assert!(!decide(Color::Auto, &[("NO_COLOR", "1")], true));
        assert!(decide(Color::Auto, &[("NO_COLOR", "")], true));
        assert!(decide(Color::Auto, &[("CLICOLOR_FORCE", "1")], false));
        assert!(!decide(Color::Auto, &[("CLICOLOR_FORCE", "0")], false));
        assert!(!decide(Color::Auto, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(!decide(Color::Auto, &[("TERM", "dumb")], true));
        assert!(decide(Color::Always, &[("NO_COLOR", "1")], false));
        assert!(!decide(Color::Never, &[("CLICOLOR_FORCE", "1")], true));
    }

    #[test]
    fn the_manual_and_the_completions_name_the_commands() {
        let (mut manual, mut script) = (Vec::new(), Vec::new());
        write_manual(&mut manual).expect("memory takes it");
        write_completions(clap_complete::Shell::Bash, &mut script).expect("memory takes it");
        for text in [manual, script] {
            assert!(String::from_utf8_lossy(&text).contains("analyze"));
        }
    }
}
