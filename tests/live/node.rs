//! An Erlang node that does what it is told.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use super::{Host, PATIENCE};

/// What an answer begins with.
const MARK: char = '\u{1}';

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Further words of the command line.
    pub flags: Vec<String>,
    /// Instead of an address of the host.
    pub at: Option<String>,
}

impl NodeOptions {
    /// With these further words.
    #[must_use]
    pub fn flags(words: &[&str]) -> Self {
        Self { flags: words.iter().map(|&word| word.into()).collect(), at: None }
    }
}

/// A running node. It is killed when dropped.
pub struct Node {
    /// Its full name.
    pub name: String,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Node {
    /// Starts a node `name@ADDRESS` and waits until it takes orders.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(host: &Host, name: &str, cookie: &str, options: &NodeOptions) -> Self {
        let full = format!("{name}@{}", options.at.clone().unwrap_or_else(|| host.address()));
        let mut command = host.command("erl");
        command.args(["-noshell", "-name", &full, "-setcookie", cookie]);
        let mut node = Self::run(host, command, options);
        node.name = full;
        node
    }

    /// Starts an emulator without distribution.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn undistributed(host: &Host) -> Self {
        let mut command = host.command("erl");
        command.arg("-noshell");
        Self::run(host, command, &NodeOptions::default())
    }

    fn run(host: &Host, mut command: Command, options: &NodeOptions) -> Self {
        command.args(&options.flags).arg("-pa").arg(host.modules()).args(["-s", "driver"]);
        // What a node logs is shown where a test fails.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.spawn(&mut command);
        let orders = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match line.strip_prefix(MARK) {
                    Some(answer) if sender.send(answer.to_owned()).is_err() => return,
                    Some(_) => {}
                    None => println!("a node: {line}"),
                }
            }
        });
        let node = Self { name: String::new(), child, orders, answers };
        let ready = node.answers.recv_timeout(PATIENCE).expect("the node starts");
        assert_eq!(ready, "ready");
        node
    }

    /// Evaluates expressions and returns the value, printed by Erlang.
    ///
    /// # Panics
    /// Where they fail.
    pub fn ask(&mut self, expressions: &str) -> String {
        let answer = self.try_ask(expressions);
        let value = answer.strip_prefix("{ok,").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or_else(|| panic!("{}: {expressions}: {answer}", self.name)).to_owned()
    }

    /// Evaluates expressions and returns `{ok,Value}` or what they failed with.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn try_ask(&mut self, expressions: &str) -> String {
        self.order(expressions);
        self.answer()
    }

    /// Gives an order without waiting for it.
    ///
    /// # Panics
    /// Where the node has ended.
    pub fn order(&mut self, expressions: &str) {
        writeln!(self.orders, "{}.", expressions.replace('\n', " ")).expect("the node takes orders");
    }

    /// The answer to the oldest order that was not answered.
    ///
    /// # Panics
    /// Where there is none.
    pub fn answer(&mut self) -> String {
        self.answers.recv_timeout(PATIENCE * 6).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Connects; whether that worked.
    pub fn connect(&mut self, to: &str) -> bool {
        self.ask(&format!("net_kernel:connect_node('{to}')")) == "true"
    }

    /// Connects, which must work.
    ///
    /// # Panics
    /// Where it does not.
    pub fn join(&mut self, to: &str) {
        assert!(self.connect(to), "{} does not connect to {to}", self.name);
    }

    /// Closes the connection to another node, and waits until it is closed.
    pub fn leave(&mut self, other: &str) {
        self.ask(&format!(
            "monitor_node('{other}', true), net_kernel:disconnect('{other}'), receive {{nodedown, '{other}'}} -> ok end"
        ));
    }

    /// The port that it listens on for distribution, as EPMD has it.
    ///
    /// # Panics
    /// Where it has none.
    pub fn port(&mut self) -> u16 {
        let short = self.name.split('@').next().unwrap_or_default().to_owned();
        let answer =
            self.ask(&format!("{{ok, All}} = net_adm:names({{127,0,0,1}}), proplists:get_value(\"{short}\", All)"));
        answer.parse().expect("a port")
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order: connections are closed.
    pub fn stop(mut self) {
        self.order("init:stop()");
        _ = self.child.wait();
    }

    /// Ends it at once.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
