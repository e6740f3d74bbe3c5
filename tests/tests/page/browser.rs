//! Chromium without a window, spoken to in the DevTools protocol through a pair of pipes: no driver, no port, no socket.
//!
//! Messages are JSON objects that end in a zero octet. An answer has the `id` of its question; what has none is an event,
//! and is kept for whoever asks what went wrong.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use e2e::live::Host;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(30);

/// A browser with one page; it ends with the value.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    faults: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with an empty profile; nothing where this machine has none, which is said.
    pub(crate) fn start() -> Option<Self> {
        if e2e::live::which("chromium").is_none() {
            // Past the test harness, which would keep the words of a test that passes to itself.
            let words = b"*** SKIPPED a look at the page: chromium is not installed (`cargo xtask setup`)\n";
            std::io::stderr().write_all(words).expect("standard error");
            return None;
        }
        Some(Self::run(Command::new("sh")))
    }

    /// Starts one on a host of a lab.
    pub(crate) fn on(host: &Host) -> Self {
        Self::run(host.observer("sh"))
    }

    fn run(mut shell: Command) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        // The browser reads from descriptor 3 and writes to 4; the shell puts our pipes there.
        let mut child = shell
            .args(["-c", r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "chromium"])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-lcd-text",
            ])
            .args(["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("TZ", "Europe/Stockholm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser =
            Self { child, commands, messages, session: String::new(), last: 0, faults: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let session = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// One command with its answer.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).expect("the browser listens");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    /// Keeps what a developer would see in red.
    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.faults.push(parameters["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" || parameters["type"] == "warning" => {
                self.faults.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.faults.push(parameters["entry"].to_string());
            }
            Some("Page.javascriptDialogOpening") => self.faults.push(format!("a dialog: {}", parameters["message"])),
            _ => {}
        }
    }

    /// Errors, warnings, violations of the policy and dialogs since the last time.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        // Whatever happened before this answer has been heard with it.
        self.evaluate("0");
        std::mem::take(&mut self.faults)
    }

    /// The size of the window, and whether it prefers dark.
    pub(crate) fn window(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
    }

    /// The value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let question = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", question);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; one that fails is not true yet.
    pub(crate) fn wait(&mut self, condition: &str) {
        let begun = Instant::now();
        let question = format!("(() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }})()");
        while self.evaluate(&question) != true {
            if begun.elapsed() > PATIENCE {
                let text = self.evaluate("document.body.innerText");
                panic!("never true: {condition}\n{}\n{:?}", text.as_str().unwrap_or_default(), self.faults);
            }
            thread::sleep(LOOK);
        }
    }

    /// Presses and releases a key, as a person does.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            other => (0, other),
        };
        let mut event = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            event["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Types into what has the focus.
    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Clicks in the middle of the first element that the selector finds.
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = self.evaluate(&format!(
            "(() => {{ const element = document.querySelector({selector:?}); element.scrollIntoView({{ block: 'center' }}); \
             const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for (kind, buttons) in [("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({
                "type": kind, "x": middle[0], "y": middle[1], "button": "left", "buttons": buttons, "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// What the window shows, as PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        from_base64(answer["data"].as_str().expect("a picture"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is asked to end, so that its own processes end with it.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |character: u8| match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(value).collect();
    let bytes = digits.chunks(4).flat_map(|group| {
        let number =
            group.iter().fold(0_u32, |number, &digit| number << 6 | u32::from(digit)) << (6 * (4 - group.len()));
        number.to_be_bytes()[1..group.len()].to_vec()
    });
    bytes.collect()
}
