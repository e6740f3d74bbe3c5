//! The daemon's page in a real browser: what it shows, that a keyboard is enough, and that nothing from the wire is markup.

mod browser;
mod server;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use browser::Browser;
use e2e::live::{BackEnd, Lab, Node, NodeOptions, Watch};
use serde_json::{Value, json};
use server::{Server, State};

/// Captures that together show every kind of link and finding.
const CAPTURES: [&str; 9] = [
    "apps-otp25.pcap",
    "cluster3-name-otp25.pcap",
    "cookie-guess20-otp25.pcap",
    "hidden-otp25.pcap",
    "iex-remsh-otp27.pcap",
    "remsh-otp25.pcap",
    "tls12-expired-otp25.pcap",
    "tls13-mutual-otp25.pcap",
    "tls13-serveronly-otp25.pcap",
];

/// The cluster of the captures, as it was while they were made: what had passed its handshake is open.
fn cluster() -> State {
    let policy = e2e::policy();
    let files: Vec<PathBuf> = CAPTURES.iter().map(|name| e2e::capture(name)).collect();
    let paths: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let output = e2e::distwatch(&["analyze", "--format", "json", "-c", &policy], &paths);
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("a JSON report");
    for (place, link) in report["links"].as_array_mut().expect("links").iter_mut().enumerate() {
        let outcome = link["handshake"]["outcome"].clone();
        if place % 3 != 0 && (outcome == "ok" || outcome == "unseen") {
            link["closed"] = Value::Null;
            link["close_reason"] = Value::Null;
        }
    }
    for alert in report["alerts"].as_array_mut().expect("alerts") {
        if alert["severity"] == "critical" || alert["severity"] == "medium" {
            alert["status"] = "new".into();
        }
    }
    let take = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    State {
        nodes: take("nodes"),
        links: take("links"),
        alerts: take("alerts"),
        rules: rules(),
        stats: report["stats"].clone(),
        sinks: vec![json!({
            "name": "loki", "kind": "loki", "queued": 0, "spool_bytes": 0, "records": { "sent": 1_204 },
            "last_success": "2026-11-25T11:59:58.000000000Z", "failing_since": null, "last_error": null,
        })],
        ..State::default()
    }
}

fn rules() -> Vec<Value> {
    let output = e2e::distwatch(&["rules", "--format", "json"], &[]);
    let rules: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON list");
    let shape = |rule: Value| {
        json!({
            "id": rule["id"], "severity": rule["severity"], "title": rule["raised_when"], "rationale": rule["rationale"],
            "remedy": rule["remediation"], "references": rule["references"],
        })
    };
    rules.into_iter().map(shape).collect()
}

fn alert(rule: &str, severity: &str, subject: &str, reason: &str) -> Value {
    json!({
        "rule_id": rule, "severity": severity, "level": "error", "status": "new", "fingerprint": format!("{rule}{}", subject.len()),
        "count": 1, "first_seen": "2026-11-25T12:00:01.000000000Z", "last_seen": "2026-11-25T12:00:01.000000000Z",
        "subject": subject, "reason": reason, "evidence": [{ "fact": "read in clear", "packet": "7", "timestamp": "2026-11-25T12:00:01.000000000Z" }],
        "confidence": "certain", "remediation": "Use `-proto_dist inet_tls`.", "references": ["G1"],
    })
}

/// The page of a cluster, loaded.
fn open(browser: &mut Browser, state: State) -> Server {
    let server = Server::start(state);
    browser.open(&server.address);
    browser
        .wait("document.getElementById('connection').dataset.state === 'live' && document.querySelector('.severity')");
    server
}

/// Text of the first element that the selector finds.
fn text(browser: &mut Browser, selector: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector({selector:?})?.textContent ?? ''"));
    text.as_str().unwrap_or_default().to_owned()
}

fn count(browser: &mut Browser, selector: &str) -> u64 {
    browser.evaluate(&format!("document.querySelectorAll({selector:?}).length")).as_u64().expect("a number")
}

/// What a browser says of every answer that asks for a token is no fault of the page.
fn without_401(mut faults: Vec<String>) -> Vec<String> {
    faults.retain(|fault| !fault.contains("the server responded with a status of 401"));
    faults
}

#[test]
fn the_page_shows_cluster_alerts_tables_and_sensor_without_a_fault() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let server = open(&mut browser, cluster());
    assert!(text(&mut browser, "#tile-tls .big").contains('%'));
    assert_ne!(text(&mut browser, ".severity.sev-critical strong"), "0");
    assert!(text(&mut browser, "#tile-sensor").contains("all is well"));
    assert_eq!(text(&mut browser, "#host"), "sensor-1.shop.example");
    for transport in ["tls", "cleartext"] {
        assert!(count(&mut browser, &format!(".edges .edge.{transport}")) > 0, "no line of {transport}");
    }
    assert!(count(&mut browser, ".vertex.hidden") > 0);
    assert!(count(&mut browser, ".mark .sev-critical") > 0);
    assert!(count(&mut browser, "#links-panel tbody tr") > 5);
    assert!(text(&mut browser, "#sensor-body").contains("loki"));
    // An alert opens to all that is known of it.
    browser.click(".alert:has(.sev-critical) .alert-head");
    browser.wait("document.querySelector('.alert-body')");
    let body = text(&mut browser, ".alert-body");
    for part in ["What to do", "Why it matters", "Evidence", "Confidence", "Subject", "First seen", "References"] {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    // A point in time is local, and tells its UTC.
    let title = browser.evaluate("document.querySelector('.alert-body time').title");
    assert!(title.as_str().is_some_and(|title| title.ends_with("Z (UTC)")), "{title}");
    // Showing its ends selects them everywhere.
    browser.click(".alert-body [data-part=show]");
    browser.wait("document.querySelector('#feed-filters .chosen:not([hidden])')");
    assert!(count(&mut browser, ".vertex.chosen") > 0);
    assert_eq!(browser.faults(), Vec::<String>::new());
    drop(server);
}

#[test]
fn names_from_the_wire_are_text_whatever_they_hold() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let mut state = cluster();
    let markup = "<img src=x onerror=alert(1)>@h";
    let turned = "a\u{202e}nimda\u{7}@h";
    let mut node = state.nodes[0].clone();
    for name in [markup, turned] {
        node["name"] = name.into();
        state.nodes.push(node.clone());
        let mut link = state.links[0].clone();
        link["flow_id"] = name.into();
        link["initiator"]["node"] = name.into();
        link["closed"] = Value::Null;
        state.links.push(link.clone());
        let mut finding = alert(name, "critical", &format!("{name} -> db@host-b"), &format!("{name} did it"));
        finding["flow_id"] = name.into();
        finding["fingerprint"] = name.into();
        finding["process"] = json!({ "pid": 1, "exe": markup, "unit": turned });
        finding["evidence"] = json!([{ "fact": markup }]);
        finding["remediation"] = name.into();
        state.alerts.push(finding);
    }
    let _server = open(&mut browser, state);
    for place in 1..=2 {
        browser.click(&format!("#feed > li:nth-child({place}) .alert-head"));
    }
    browser.click("#links-panel .opener");
    browser.click("#tab-nodes");
    browser.wait("document.querySelectorAll('.alert-body').length === 2");
    assert_eq!(count(&mut browser, "img"), 1, "the page's own sign is the only picture");
    for place in ["#graph", "#feed", "#nodes-panel"] {
        let text = text(&mut browser, place);
        assert!(text.contains(markup), "{place}: {text}");
        assert!(text.contains("a\\u{202e}nimda\\u{7}@h"), "{place}: {text}");
    }
    let unseen = r"/[\u0000-\u0009\u200b-\u200f\u202a-\u202e\u2066-\u2069]/.test(document.documentElement.textContent)";
    assert_eq!(browser.evaluate(unseen), false, "a character that is not seen is on the page");
    let isolated =
        "[...document.querySelectorAll('.wire')].every((e) => getComputedStyle(e).unicodeBidi === 'isolate')";
    assert_eq!(browser.evaluate(isolated), true);
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_finding_appears_without_reload_and_a_lost_connection_is_said_and_found_again() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let server = open(&mut browser, cluster());
    browser.evaluate("window.isTheSame = true");
    let before = count(&mut browser, "#feed > li");
    server.raise(&alert("remote-shell", "critical", "probe@host-z -> db@host-b", "a shell was opened just now"));
    browser
        .wait("document.querySelector('#feed > li:first-child')?.textContent.includes('a shell was opened just now')");
    assert_eq!(count(&mut browser, "#feed > li"), before + 1);
    browser.wait("document.getElementById('announcer').textContent.includes('a shell was opened just now')");
    // The same one again is no second one.
    let mut again = alert("remote-shell", "critical", "probe@host-z -> db@host-b", "a shell was opened just now");
    again["count"] = 7.into();
    again["status"] = "update".into();
    again["last_seen"] = "2026-11-25T12:05:00.000000000Z".into();
    server.raise(&again);
    browser.wait("document.querySelector('#feed > li:first-child')?.textContent.includes('×7')");
    assert_eq!(count(&mut browser, "#feed > li"), before + 1);
    // Its end takes it out of what is active.
    again["status"] = "resolved".into();
    again["last_seen"] = "2026-11-25T12:06:00.000000000Z".into();
    server.raise(&again);
    browser.wait("!document.getElementById('feed').textContent.includes('a shell was opened just now')");
    server.hang_up();
    browser.wait("document.getElementById('connection-text').textContent.includes('disconnected since')");
    // What happens meanwhile is there once it is back, which the button speeds up.
    server.raise(&alert("bad-cookie", "medium", "late@host-z -> db@host-b", "this was missed meanwhile"));
    browser.evaluate("document.getElementById('retry').click()");
    browser.wait("document.getElementById('connection').dataset.state === 'live'");
    browser.wait("document.getElementById('feed').textContent.includes('this was missed meanwhile')");
    assert_eq!(server.listeners(), 1);
    // A daemon that was started again knows nothing of what it said before, and may have other findings.
    let mut alerts = server.alerts();
    alerts.retain(|alert| alert["reason"] != "this was missed meanwhile");
    alerts.push(alert("weak-cookie", "high", "db@host-b", "the cookie is guessable"));
    server.restart(alerts);
    browser.wait("document.getElementById('connection').dataset.state === 'away'");
    browser.wait("document.getElementById('connection').dataset.state === 'live'");
    browser.wait("document.getElementById('feed').textContent.includes('the cookie is guessable')");
    assert!(!text(&mut browser, "#feed").contains("this was missed meanwhile"));
    assert_eq!(browser.evaluate("window.isTheSame"), true, "the page was never loaded anew");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_keyboard_reaches_and_works_everything() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let _server = open(&mut browser, cluster());
    let mut seen = Vec::new();
    for _ in 0..120 {
        browser.press("Tab");
        let place = browser.evaluate(
            "(() => { const e = document.activeElement; const style = getComputedStyle(e); \
             return { id: e.id, class: String(e.className.baseVal ?? e.className), room: e.closest('section, header, nav, footer')?.id ?? '', \
             isSeen: style.outlineStyle !== 'none' || e.classList.contains('vertex') }; })()",
        );
        assert_eq!(place["isSeen"], true, "the focus is not seen on {place}");
        seen.push(place);
        if seen.last().is_some_and(|place| place["class"].as_str().is_some_and(|class| class.contains("opener"))) {
            break;
        }
    }
    for wanted in ["graph-level", "zoom-fit", "feed-rule", "feed-text", "tab-links", "links-text"] {
        assert!(seen.iter().any(|place| place["id"] == wanted), "Tab never reaches {wanted}: {seen:#?}");
    }
    let stops =
        seen.iter().filter(|place| place["class"].as_str().is_some_and(|class| class.contains("vertex"))).count();
    assert_eq!(stops, 1, "the graph is one stop, whatever the number of nodes");
    // A row opens.
    browser.press("Enter");
    browser.wait("document.querySelector('tr.detail')");
    assert_eq!(browser.evaluate("document.activeElement.classList.contains('opener')"), true, "the focus stays");
    // In the graph: arrows walk, Enter selects, Escape ends it.
    browser.evaluate("document.querySelector('.vertex[tabindex=\"0\"]').focus()");
    let first = browser.evaluate("document.activeElement.dataset.key");
    for key in ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"] {
        browser.press(key);
        if browser.evaluate("document.activeElement.dataset.key") != first {
            break;
        }
    }
    assert_ne!(browser.evaluate("document.activeElement.dataset.key"), first, "no arrow leads anywhere");
    let all = text(&mut browser, "#links-panel [role=status]");
    browser.press("Enter");
    browser.wait("document.activeElement.getAttribute('aria-selected') === 'true'");
    assert_ne!(text(&mut browser, "#links-panel [role=status]"), all, "the table follows the selection");
    browser.press("Escape");
    browser.wait("document.querySelector('#feed-filters .chosen').hidden");
    // The search is one key away, and narrows the feed.
    browser.press("/");
    browser.wait("document.activeElement.id === 'feed-text'");
    browser.insert("guess");
    browser.wait("[...document.querySelectorAll('#feed > li')].every((e) => e.textContent.includes('guess'))");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

/// How long something takes to be done and drawn, in milliseconds.
fn takes(browser: &mut Browser, what: &str, work: &str) -> f64 {
    let time = browser.evaluate(&format!(
        "(async () => {{ const begun = performance.now(); {work}; \
         await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))); \
         return performance.now() - begun; }})()"
    ));
    let time = time.as_f64().expect("a number");
    eprintln!("{what}: {time:.0} ms");
    time
}

/// A control gets a value, as if a person had given it.
fn set(id: &str, value: &str, event: &str) -> String {
    format!(
        "const control = document.getElementById('{id}'); control.value = '{value}'; control.dispatchEvent(new Event('{event}'))"
    )
}

/// Presses and lets go of the first group of the graph, as a pointer does.
const CHOOSE: &str = "(() => { const vertex = document.querySelector('.vertex'); const box = vertex.getBoundingClientRect(); \
                      const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + 20, pointerId: 1 }; \
                      vertex.dispatchEvent(new PointerEvent('pointerdown', at)); \
                      vertex.dispatchEvent(new PointerEvent('pointerup', at)); \
                      vertex.dispatchEvent(new MouseEvent('click', at)); })()";

#[test]
fn thousands_of_links_cost_a_bounded_number_of_elements_and_little_time() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let mut state = cluster();
    let (node, link) = (state.nodes[0].clone(), state.links[0].clone());
    let name = |number: usize| format!("worker{number}@10.77.{}.{}", number / 40, number % 40 + 1);
    state.nodes = (0..2_000)
        .map(|number| {
            let mut node = node.clone();
            node["name"] = name(number).into();
            node
        })
        .collect();
    state.links = (0..10_000_usize)
        .map(|number| {
            let mut link = link.clone();
            link["flow_id"] = format!("{number:016x}").into();
            link["initiator"]["node"] = name(number % 2_000).into();
            link["acceptor"]["node"] = name((number * 7 + number / 2_000 + 1) % 2_000).into();
            link["transport"] = if number % 9 == 0 { "cleartext" } else { "tls" }.into();
            link["closed"] = Value::Null;
            link
        })
        .collect();
    state.alerts.extend((0..1_000_usize).map(|number| {
        let (from, to) = (name(number), name((number * 7 + 1) % 2_000));
        let mut finding =
            alert("cleartext-distribution", "high", &format!("{from} -> {to}"), &format!("{from} is read."));
        finding["fingerprint"] = number.to_string().into();
        finding
    }));
    let server = open(&mut browser, state);
    browser.wait("document.getElementById('links-count').textContent === '10,000'");
    let loaded = browser.evaluate("performance.now()").as_f64().expect("a number");
    eprintln!("10,000 links, 2,000 nodes and 1,000 findings from the first octet to the picture: {loaded:.0} ms");
    let elements = count(&mut browser, "*");
    assert!(elements < 6_000, "{elements} elements");
    assert!(count(&mut browser, ".vertex") <= 120);
    assert!(text(&mut browser, "#graph-summary").contains("groups"));
    assert_eq!(count(&mut browser, "#links-panel tbody tr"), 50);
    browser.click("#links-panel .pager button:last-child");
    browser.wait("document.querySelector('#links-panel .pager').textContent.includes('page 2 of 200')");
    // Each by itself is drawn too, when asked for.
    let mut slowest = 0_f64;
    for (what, work) in [
        ("grouped by host", set("graph-level", "1", "change")),
        ("grouped by node, the most remarkable", set("graph-level", "0", "change")),
        ("grouped by what fits", set("graph-level", "auto", "change")),
        ("a search among the links", set("links-text", "worker17", "input")),
        ("no search any more", set("links-text", "", "input")),
        ("links sorted by another column", "document.querySelector('#links-panel th button').click()".to_owned()),
        ("the other table", "document.getElementById('tab-nodes').click()".to_owned()),
        ("a search among the findings", set("feed-text", "worker17", "input")),
        ("a group chosen", CHOOSE.to_owned()),
        ("no group chosen any more", CHOOSE.to_owned()),
    ] {
        slowest = slowest.max(takes(&mut browser, what, &work));
    }
    let frames = browser.evaluate(
        "(async () => { const frames = []; const end = document.documentElement.scrollHeight - innerHeight; let last = performance.now(); \
         for (let step = 0; step <= 60; step += 1) { scrollTo(0, (end * step) / 60); await new Promise(requestAnimationFrame); \
         frames.push(performance.now() - last); last = performance.now(); } \
         frames.sort((a, b) => a - b); return [frames[30], frames[60]]; })()",
    );
    eprintln!(
        "scrolled from top to bottom: half of the frames within {:.0} ms, all within {:.0} ms",
        frames[0].as_f64().unwrap_or(f64::NAN),
        frames[1].as_f64().unwrap_or(f64::NAN)
    );
    browser.evaluate(&format!("{}; 0", set("feed-text", "", "input")));
    let mut newest = alert("remote-shell", "critical", "probe@host-z -> db@host-b", "a shell was opened just now");
    newest["first_seen"] = "2026-11-25T13:00:00.000000000Z".into();
    let begun = Instant::now();
    server.raise(&newest);
    browser
        .wait("document.querySelector('#feed > li:first-child')?.textContent.includes('a shell was opened just now')");
    eprintln!("a new finding is shown after {} ms", begun.elapsed().as_millis());
    // On a machine that does much else besides.
    assert!(slowest < 5_000.0 && frames[1].as_f64().is_some_and(|frame| frame < 5_000.0), "{slowest} ms, {frames}");
    let elements = count(&mut browser, "*");
    assert!(elements < 6_000, "{elements} elements");
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn nothing_is_wider_than_a_phone() {
    let Some(mut browser) = Browser::start() else { return };
    for width in [390, 360] {
        browser.window(width, 844, "light");
        let mut state = cluster();
        // A name as long as a peer may make it.
        let long = format!("{}@{}", "n".repeat(120), "h".repeat(120));
        state.nodes[0]["name"] = long.clone().into();
        state.links[0]["initiator"]["node"] = long.clone().into();
        state.alerts.push(alert("hidden-node", "high", &long, &format!("{long} is hidden")));
        let _server = open(&mut browser, state);
        browser.click(".alert-head");
        browser.click(".opener");
        browser.wait("document.querySelector('.alert-body') && document.querySelector('tr.detail')");
        for tab in ["#tab-nodes", "#tab-links"] {
            browser.click(tab);
            let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().expect("a number");
            assert!(wide <= u64::from(width), "the page is {wide} wide in a window of {width}");
        }
    }
    assert_eq!(browser.faults(), Vec::<String>::new());
}

/// The least contrast of the texts that a selector finds with what is behind them, as WCAG 2 computes it.
const CONTRAST: &str = r"(() => {
  const rgb = (text) => { const m = text.match(/[\d.]+/g).map(Number); return { c: m.slice(0, 3), a: m[3] ?? 1 }; };
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const { c, a } = rgb(getComputedStyle(e).backgroundColor); if (a > 0.99) return c; } return [255, 255, 255]; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const texts = [...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length && !(e instanceof SVGElement) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return texts.filter((e) => !e.matches(':disabled, option')).map((e) => [ratio(rgb(getComputedStyle(e).color).c, behind(e)), `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`]).sort((a, b) => a[0] - b[0]).slice(0, 3).concat([[texts.length, 'texts']]);
})()";

#[test]
fn every_text_can_be_read_in_light_and_in_dark() {
    let Some(mut browser) = Browser::start() else { return };
    for scheme in ["light", "dark"] {
        browser.window(1440, 1000, scheme);
        let mut state = cluster();
        state.sinks.push(json!({
            "name": "oncall", "kind": "alertmanager", "queued": 14, "spool_bytes": 18_200, "records": { "sent": 90 },
            "last_success": null, "failing_since": "2026-11-25T11:20:00.000000000Z", "last_error": "connection refused",
        }));
        let _server = open(&mut browser, state);
        browser.click(".alert-head");
        browser.click(".opener");
        browser.wait("document.querySelector('.alert-body') && document.querySelector('tr.detail')");
        let worst = browser.evaluate(CONTRAST);
        assert!(worst[0][0].as_f64().is_some_and(|ratio| ratio >= 4.5), "{scheme}: {worst}");
        assert!(worst[3][0].as_u64().is_some_and(|texts| texts > 100), "{scheme}: {worst}");
    }
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_token_is_asked_for_kept_for_the_tab_and_sent_with_the_events() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(900, 700, "light");
    let mut state = cluster();
    state.token = Some("sesame-0123456789".to_owned());
    let server = Server::start(state);
    browser.open(&server.address);
    browser.wait("document.getElementById('token-dialog').open");
    // Escape does not lead past it.
    browser.press("Escape");
    browser.wait("document.getElementById('token-dialog').open && document.activeElement.id === 'token'");
    browser.insert("wrong");
    browser.press("Enter");
    browser.wait("document.getElementById('token-dialog').open && !document.getElementById('token-error').hidden");
    browser.insert("sesame-0123456789");
    browser.press("Enter");
    browser
        .wait("document.getElementById('connection').dataset.state === 'live' && document.querySelector('.severity')");
    assert_eq!(server.listeners(), 1);
    browser.open(&server.address);
    browser
        .wait("document.getElementById('connection')?.dataset.state === 'live' && document.querySelector('.severity')");
    assert_eq!(browser.evaluate("document.getElementById('token-dialog').open"), false, "the tab remembers it");
    let faults = browser.faults();
    assert_eq!(faults.len(), 2, "one question without a token, and one with a wrong one: {faults:?}");
    assert_eq!(without_401(faults), Vec::<String>::new());
}

#[test]
fn a_file_that_does_not_come_is_asked_for_again_and_so_is_an_answer() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(900, 700, "light");
    // What a browser drops when its host gets another address: whatever waits for a connection then, scripts among it.
    for silent in ["/style.css", "/app.js", "/tables.js", "/api/v1/nodes", "/api/v1/status", "/api/v1/events"] {
        let _server = open(&mut browser, State { silent: vec![silent], ..cluster() });
        assert_eq!(browser.evaluate("document.styleSheets.length"), 1, "{silent}");
        // None where it was asked for on a connection that had been used before: there a browser asks once more by itself.
        let faults = browser.faults();
        let is_expected = |fault: &String| fault.contains("net::ERR_EMPTY_RESPONSE");
        assert!(faults.len() <= 1 && faults.iter().all(is_expected), "{silent}: {faults:?}");
    }
}

#[test]
fn emptiness_is_explained() {
    let Some(mut browser) = Browser::start() else { return };
    browser.window(1440, 1000, "light");
    let full = cluster();
    let _server = open(&mut browser, State { stats: full.stats, ..State::default() });
    let graph = text(&mut browser, "#graph");
    assert!(graph.contains("No distribution traffic was seen yet") && graph.contains("distwatch doctor"), "{graph}");
    assert!(text(&mut browser, "#feed-foot").contains("No active finding"));
    assert!(text(&mut browser, "#links-panel").contains("No distribution link was seen yet"));
    assert!(text(&mut browser, "#sensor-body").contains("No sink is configured"));
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn the_page_of_a_running_daemon_tells_of_real_nodes_while_they_meet() {
    if !e2e::live::possible_with("the page of a running daemon", &["chromium"]) {
        return;
    }
    let mut lab = Lab::new();
    let (a, b) = (lab.host("a", 1), lab.host("b", 2));
    let (token, token_file) = ("hazelnut-0123456789", b.home().join("token"));
    std::fs::write(&token_file, token).expect("a token");
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).expect("a secret");
    let policy = format!(
        "[network]\nisolated = [\"lo\", \"10.77.0.0/24\"]\n[http]\ntoken_file = \"{}\"\n",
        token_file.display()
    );
    let daemon = Watch::new(&b, BackEnd::Pcap).policy(&policy).words(&["--http", "127.0.0.1:9469"]).start();
    // A browser lets go of all connections when its host gets an address, which a link that is new does by itself.
    b.settles();
    let mut browser = Browser::on(&b);
    browser.window(1440, 1000, "light");
    browser.open("http://127.0.0.1:9469/");
    browser.wait("document.activeElement.id === 'token'");
    browser.insert(token);
    browser.press("Enter");
    browser
        .wait("document.getElementById('connection').dataset.state === 'live' && document.querySelector('.severity')");
    assert!(text(&mut browser, "#graph").contains("No distribution traffic was seen yet"));
    assert!(text(&mut browser, "#sensor-body").contains("libpcap"));
    let sent = browser.evaluate("fetch('/').then((answer) => answer.headers.get('content-security-policy'))");
    let parts = |policy: &str| policy.split(';').map(|part| part.trim().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(parts(sent.as_str().unwrap_or_default()), parts(server::POLICY), "the stand-in is as strict");
    let mut web = Node::start(&a, "web", "maplesyrup", &NodeOptions::default());
    let db = Node::start(&b, "db", "maplesyrup", &NodeOptions::default());
    web.join(&db.name);
    browser.wait("document.getElementById('feed').textContent.includes('cleartext-distribution')");
    browser.wait("document.querySelector('.edges .edge.cleartext:not(.over)')");
    for name in ["web@10.77.0.1", "db@10.77.0.2"] {
        browser.wait(&format!("document.querySelector('.vertex[data-key=\"n:{name}\"]')"));
        browser.wait(&format!("document.getElementById('links-panel').textContent.includes('{name}')"));
    }
    browser.wait("document.getElementById('nodes-count').textContent === '2'");
    web.ask("rpc:call('db@10.77.0.2', os, cmd, [\"id\"])");
    browser.wait("document.getElementById('feed').textContent.includes('remote-command')");
    browser.wait("document.querySelector('.severity.sev-critical strong').textContent === '1'");
    browser.click(".alert:has(.sev-critical) .alert-head");
    browser.wait("document.querySelector('.alert-body')?.textContent.includes('os:cmd/1')");
    assert_eq!(without_401(browser.faults()), Vec::<String>::new());
    daemon.stop();
    browser.wait("document.getElementById('connection-text').textContent.includes('disconnected since')");
}

/// The pictures of the documentation, where `DISTWATCH_PICTURES` names their folder.
#[test]
fn pictures_are_taken_where_they_are_asked_for() {
    let Some(folder) = std::env::var_os("DISTWATCH_PICTURES") else { return };
    let Some(mut browser) = Browser::start() else { return };
    let folder = PathBuf::from(folder);
    for (name, width, height, scheme) in
        [("wide", 1320, 980, "light"), ("dark", 1320, 980, "dark"), ("phone", 390, 1240, "light")]
    {
        browser.window(width, height, scheme);
        let _server = open(&mut browser, cluster());
        if width > 1000 {
            browser.click(".alert:has(.sev-critical) .alert-head");
            browser.wait("document.querySelector('.alert-body')");
            browser.evaluate("document.querySelector('.alert-body').parentElement.scrollIntoView()");
            browser.evaluate("scrollTo(0, 0); document.activeElement.blur()");
        }
        let picture = browser.picture();
        assert!(picture.len() < 250_000, "{name}: {} octets", picture.len());
        std::fs::write(folder.join(format!("page-{name}.png")), picture).expect("the folder of the pictures");
    }
    assert_eq!(browser.faults(), Vec::<String>::new());
}
