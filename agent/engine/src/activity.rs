//! What control messages do: remote calls, spawns, sends and shells, with who, whom and what.
//!
//! [`read`] turns one message into an [`Action`] without allocating; [`tally::Tally`] counts actions that are
//! alike, so that a call in a loop costs one event an interval and not one a call.
//!
//! Sources: OTP, "Distribution Protocol", section "Protocol between Connected Nodes"; `docs/protocol.md` §7 for the
//! shapes that `rpc`, `erpc`, `gen_server`, the I/O protocol and the shells use.

pub mod tally;

use crate::dist::{Message, Operation, Role};
use crate::etf::{Atom, Cursor, Reference, Token};
use crate::model::ActivityKind;
use crate::wire::Malformed;

/// Nesting of what is stepped over on the way to the interesting part: a caller's tag, a reference, an option.
const DEPTH: usize = 16;

/// What one control message does.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// What kind of thing.
    pub kind: ActivityKind,
    /// What it is done to.
    pub subject: Subject<'a>,
    /// At the arguments, where it has any.
    pub arguments: Option<Cursor<'a>>,
    /// The answer to this request will hold a cookie, or the arguments do.
    pub cookie: Cookie,
}

/// Whether a cookie is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookie {
    /// No.
    #[default]
    None,
    /// The answer will be one.
    Asked,
    /// The arguments hold one.
    Sent,
}

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject<'a> {
    /// A function. The arity is unknown where the argument list is cut off or not a proper list.
    Mfa {
        /// Module.
        module: Atom<'a>,
        /// Function.
        function: Atom<'a>,
        /// Arity.
        arity: Option<u32>,
    },
    /// A closure.
    Fun {
        /// The module that it was made in.
        module: Atom<'a>,
        /// Its place in the module's table.
        index: u32,
        /// Arity.
        arity: u8,
    },
    /// A registered name.
    Name(Atom<'a>),
    /// A process, by its identifier.
    Pid,
    /// Nothing that has a name.
    None,
}

/// Reads what a message does. Never fails: a shape that is not known is a plain send.
#[must_use]
pub fn read<'a>(message: &Message<'a>) -> Action<'a> {
    let plain = |kind, subject| Action { kind, subject, arguments: None, cookie: Cookie::None };
    let operation = message.operation;
    match operation {
        Operation::REG_SEND | Operation::REG_SEND_TT => match atom_of(message, Role::ToName) {
            Some(name) => read_named(name, message.payload),
            None => plain(ActivityKind::SendNamed, Subject::None),
        },
        Operation::SEND | Operation::SEND_TT | Operation::SEND_SENDER | Operation::SEND_SENDER_TT => {
            read_send(Subject::Pid, ActivityKind::SendPid, message.payload)
        }
        Operation::ALTACT_SIG_SEND => read_altact(message),
        Operation::SPAWN_REQUEST | Operation::SPAWN_REQUEST_TT => read_spawn_request(message),
        Operation::LINK => plain(ActivityKind::Link, Subject::Pid),
        Operation::MONITOR_P => plain(ActivityKind::Monitor, name_or_pid(message)),
        Operation::EXIT
        | Operation::EXIT2
        | Operation::EXIT_TT
        | Operation::EXIT2_TT
        | Operation::PAYLOAD_EXIT
        | Operation::PAYLOAD_EXIT_TT
        | Operation::PAYLOAD_EXIT2
        | Operation::PAYLOAD_EXIT2_TT => plain(ActivityKind::Exit, Subject::Pid),
        _ => plain(ActivityKind::Reply, Subject::None),
    }
}

/// The next term: its first token, with the cursor behind the whole of it.
fn item<'a>(cursor: &mut Cursor<'a>) -> Result<Token<'a>, Malformed> {
    let mut inside = *cursor;
    cursor.skip(DEPTH)?;
    inside.token()
}

fn atom_of<'a>(message: &Message<'a>, role: Role) -> Option<Atom<'a>> {
    message.element(role)?.atom()
}

fn name_or_pid<'a>(message: &Message<'a>) -> Subject<'a> {
    let Some(mut to) = message.element(Role::To) else { return Subject::None };
    match to.atom() {
        Some(name) => Subject::Name(name),
        None if to.pid().is_some() || to.token().is_ok() => Subject::Pid,
        None => Subject::None,
    }
}

/// ALTACT_SIG_SEND says in its flags what `To` is (OTP 28, `dist.h`, `DOP_ALTACT_SIG_SEND`).
fn read_altact<'a>(message: &Message<'a>) -> Action<'a> {
    const ALIAS: i64 = 4;
    const NAME: i64 = 8;
    const EXIT: i64 = 16;
    let flags = match message.element(Role::Flags).map(|mut flags| flags.token()) {
        Some(Ok(Token::Integer(flags))) => flags,
        _ => 0,
    };
    let plain = |kind, subject| Action { kind, subject, arguments: None, cookie: Cookie::None };
    if flags & EXIT != 0 {
        return plain(ActivityKind::Exit, Subject::Pid);
    }
    if flags & ALIAS != 0 {
        return plain(ActivityKind::Reply, Subject::None);
    }
    match (flags & NAME != 0, name_or_pid(message)) {
        (true, Subject::Name(name)) => read_named(name, message.payload),
        (_, subject) => read_send(subject, ActivityKind::SendPid, message.payload),
    }
}

/// A message to a registered name. `rex` and `net_kernel` are servers that act on behalf of the caller.
#[inline]
fn read_named<'a>(name: Atom<'a>, payload: Option<Cursor<'a>>) -> Action<'a> {
    let subject = Subject::Name(name);
    let served = match payload {
        Some(payload) if name.is("rex") => read_rex(payload),
        Some(payload) if name.is("net_kernel") => read_net_kernel(payload),
        _ => None,
    };
    served.unwrap_or_else(|| read_send(subject, ActivityKind::SendNamed, payload))
}

/// A plain message: calls and casts of behaviours and the I/O protocol have shapes of their own.
fn read_send<'a>(subject: Subject<'a>, otherwise: ActivityKind, payload: Option<Cursor<'a>>) -> Action<'a> {
    let mut action = Action { kind: otherwise, subject, arguments: None, cookie: Cookie::None };
    let Some(mut cursor) = payload else { return action };
    let Some(arity) = cursor.tuple() else { return action };
    let mut after = cursor;
    let Some(tag) = after.atom() else {
        // `{Ref, Reply}` and `{[alias|Ref], Reply}` answer a call.
        let answers = arity == 2 && matches!(after.token(), Ok(Token::Reference(_) | Token::List(_)));
        if answers && otherwise == ActivityKind::SendPid {
            action.kind = ActivityKind::Reply;
        }
        return action;
    };
    let Some(text) = tag.text else { return action };
    match (text, arity) {
        (b"$gen_call" | b"system", 3) => action.kind = ActivityKind::GenCall,
        (b"$gen_cast", 2) => action.kind = ActivityKind::GenCast,
        (b"io_request", 4) => action.kind = ActivityKind::IoRequest,
        (b"file_request", 4) => return read_file_request(after).unwrap_or(action),
        (b"io_reply" | b"file_reply", 3) | (b"rex" | b"features_reply", _) => action.kind = ActivityKind::Reply,
        _ => return action,
    }
    if matches!(action.kind, ActivityKind::GenCall) && after.skip(DEPTH).is_err() {
        return action;
    }
    if action.kind == ActivityKind::GenCall && matches!(subject, Subject::Name(name) if name.is("auth")) {
        action.cookie = read_auth(after);
    }
    action.arguments = Some(after);
    action
}

/// `get_cookie`, `{get_cookie, Node}` and `{set_cookie, Node, Cookie}`: what the server behind `erlang:get_cookie/0` and
/// its like takes (OTP, kernel, `auth`).
fn read_auth(mut request: Cursor<'_>) -> Cookie {
    let _ = request.tuple();
    match request.atom().and_then(|request| request.text) {
        Some(b"get_cookie" | b"get_our_cookie") => Cookie::Asked,
        Some(b"set_cookie" | b"set_our_cookie") => Cookie::Sent,
        _ => Cookie::None,
    }
}

/// The reference in the tag of `{'$gen_call', {From, Tag}, Request}`: `Ref` or `[alias | Ref]`. The answer holds it too.
pub(crate) fn call_reference<'a>(message: &Message<'a>) -> Option<Reference<'a>> {
    let mut cursor = message.payload?;
    cursor.expect_tuple(3)?;
    cursor.take_atom("$gen_call").then_some(())?;
    cursor.expect_tuple(2)?;
    cursor.skip(DEPTH).ok()?;
    read_tag(cursor)
}

/// The reference in an answer to such a call: `{Tag, Reply}`.
pub(crate) fn answer_reference<'a>(message: &Message<'a>) -> Option<Reference<'a>> {
    let mut cursor = message.payload?;
    cursor.expect_tuple(2)?;
    read_tag(cursor)
}

fn read_tag(mut cursor: Cursor<'_>) -> Option<Reference<'_>> {
    if cursor.list_len_hint() == Some(1) {
        cursor.token().ok()?;
        cursor.skip(DEPTH).ok()?;
    }
    cursor.reference()
}

/// `{file_request, From, ReplyAs, Request}` is what `file` sends to an open file of another node
/// (OTP, kernel, `file_io_server`).
fn read_file_request<'a>(mut cursor: Cursor<'a>) -> Option<Action<'a>> {
    cursor.skip(DEPTH).ok()?;
    cursor.skip(DEPTH).ok()?;
    let arguments = Some(cursor);
    let (request, arity) = match cursor.token().ok()? {
        Token::Atom(request) => (request, 0),
        Token::Tuple(arity) => (cursor.atom()?, arity.saturating_sub(1)),
        _ => return None,
    };
    let subject = Subject::Mfa { module: Atom::utf8(b"file"), function: request, arity: Some(arity) };
    Some(Action { kind: ActivityKind::IoRequest, subject, arguments, cookie: Cookie::None })
}

/// The shapes that `rex` acts on, all releases (`docs/protocol.md` §7.2).
fn read_rex(mut cursor: Cursor<'_>) -> Option<Action<'_>> {
    let arity = cursor.tuple()?;
    let Token::Atom(tag) = item(&mut cursor).ok()? else {
        // {From, {call, M, F, A, GroupLeader}}
        return if arity == 2 { read_rex_request(cursor) } else { None };
    };
    match (tag.text?, arity) {
        (b"$gen_call", 3) => {
            cursor.skip(DEPTH).ok()?;
            read_rex_request(cursor)
        }
        (b"$gen_cast", 2) => read_rex_request(cursor),
        (b"cast", 5) => read_apply(cursor, ActivityKind::RpcCast),
        _ => None,
    }
}

fn read_rex_request(mut cursor: Cursor<'_>) -> Option<Action<'_>> {
    let arity = cursor.tuple()?;
    let tag = cursor.atom()?;
    match (tag.text?, arity) {
        (b"call", 5) => read_apply(cursor, ActivityKind::RpcCall),
        (b"block_call", 5) => read_apply(cursor, ActivityKind::RpcBlockCall),
        (b"cast", 5) => read_apply(cursor, ActivityKind::RpcCast),
        (b"sbcast", 3) => {
            let name = cursor.atom()?;
            Some(read_send(Subject::Name(name), ActivityKind::SendNamed, Some(cursor)))
        }
        _ => None,
    }
}

/// `{'$gen_call', From, {spawn | spawn_link | spawn_opt, M, F, A, …}}`: how `spawn/4` travelled before OTP 23, and
/// still does to peers without SPAWN.
fn read_net_kernel(mut cursor: Cursor<'_>) -> Option<Action<'_>> {
    if cursor.tuple()? != 3 || !cursor.atom()?.is("$gen_call") {
        return None;
    }
    cursor.skip(DEPTH).ok()?;
    let arity = cursor.tuple()?;
    let kind = match (cursor.atom()?.text?, arity) {
        (b"spawn", 4..) => ActivityKind::Spawn,
        (b"spawn_link", 4..) => ActivityKind::SpawnLink,
        (b"spawn_opt", 4..) => ActivityKind::Spawn,
        _ => return None,
    };
    read_apply(cursor, kind)
}

/// Module, function and argument list, one after the other.
fn read_apply(mut cursor: Cursor<'_>, kind: ActivityKind) -> Option<Action<'_>> {
    let module = cursor.atom()?;
    let function = cursor.atom()?;
    Some(applied(kind, module, function, cursor.arity_of_args(), Some(cursor)))
}

/// An application of a function, with the two cases that have a name of their own: closures and shells.
fn applied<'a>(
    kind: ActivityKind,
    module: Atom<'a>,
    function: Atom<'a>,
    arity: Option<u32>,
    arguments: Option<Cursor<'a>>,
) -> Action<'a> {
    if module.is("erlang")
        && function.is("apply")
        && let Some(action) = arguments.and_then(|arguments| read_erlang_apply(arguments, kind))
    {
        return action;
    }
    let kind = if is_shell(module, function) { ActivityKind::Shell } else { kind };
    Action { kind, subject: Subject::Mfa { module, function, arity }, arguments, cookie: cookie_of(module, function) }
}

/// `erlang:apply(Fun, Args)` and `erlang:apply(M, F, Args)`: what is applied is what matters.
fn read_erlang_apply<'a>(mut arguments: Cursor<'a>, kind: ActivityKind) -> Option<Action<'a>> {
    let Token::List(count) = arguments.token().ok()? else { return None };
    let subject = match (count, arguments.token().ok()?) {
        (2, Token::Fun { module, arity, index, .. }) => Subject::Fun { module, index, arity },
        (2, Token::Export { module, function, arity }) => {
            return Some(applied(kind, module, function, Some(u32::from(arity)), Some(arguments)));
        }
        (3, Token::Atom(module)) => {
            let function = arguments.atom()?;
            // An `apply` of an `apply` is not unwrapped again, so this ends.
            let arity = arguments.arity_of_args();
            let kind = if is_shell(module, function) { ActivityKind::Shell } else { kind };
            let cookie = cookie_of(module, function);
            return Some(Action {
                kind,
                subject: Subject::Mfa { module, function, arity },
                arguments: Some(arguments),
                cookie,
            });
        }
        _ => return None,
    };
    Some(Action { kind, subject, arguments: Some(arguments), cookie: Cookie::None })
}

/// What starts a shell: `shell:start` for `erl -remsh` (all releases), `iex:start` and `'Elixir.IEx':start` for
/// `iex --remsh` (`docs/protocol.md` §7.5, §7.6).
fn is_shell(module: Atom<'_>, function: Atom<'_>) -> bool {
    const SHELLS: [(&str, &str); 5] = [
        ("shell", "start"),
        ("shell", "server"),
        ("iex", "start"),
        ("Elixir.IEx", "start"),
        ("Elixir.IEx.Server", "run_from_shell"),
    ];
    SHELLS.iter().any(|&(m, f)| module.is(m) && function.is(f))
}

fn cookie_of(module: Atom<'_>, function: Atom<'_>) -> Cookie {
    match (module.text, function.text) {
        (Some(b"erlang" | b"auth" | b"Elixir.Node"), Some(b"get_cookie")) => Cookie::Asked,
        (Some(b"erlang" | b"auth" | b"Elixir.Node"), Some(b"set_cookie")) => Cookie::Sent,
        _ => Cookie::None,
    }
}

/// SPAWN_REQUEST `{29, ReqId, From, GroupLeader, {M, F, Arity}, OptList}` with the argument list as payload.
fn read_spawn_request<'a>(message: &Message<'a>) -> Action<'a> {
    let unreadable =
        Action { kind: ActivityKind::Spawn, subject: Subject::None, arguments: None, cookie: Cookie::None };
    let Some(mut mfa) = message.element(Role::Mfa) else { return unreadable };
    let (Some(3), Some(module), Some(function)) = (mfa.tuple(), mfa.atom(), mfa.atom()) else { return unreadable };
    let arity = match mfa.token() {
        Ok(Token::Integer(arity)) => u32::try_from(arity).ok(),
        _ => None,
    };
    if module.is("erpc") {
        let unwrapped = message.payload.and_then(|arguments| match (function.text, arity) {
            (Some(b"execute_call"), Some(4)) => read_erpc(arguments, true, ActivityKind::ErpcCall),
            (Some(b"execute_call"), Some(3)) => read_erpc(arguments, false, ActivityKind::ErpcCall),
            (Some(b"execute_cast"), Some(3)) => read_erpc(arguments, false, ActivityKind::ErpcCast),
            _ => None,
        });
        if let Some(action) = unwrapped {
            return action;
        }
    }
    applied(spawn_kind(message), module, function, arity, message.payload)
}

/// The argument list of `erpc:execute_call(Ref, M, F, A)` and `erpc:execute_cast(M, F, A)`.
fn read_erpc(mut arguments: Cursor<'_>, with_reference: bool, kind: ActivityKind) -> Option<Action<'_>> {
    let Token::List(_) = arguments.token().ok()? else { return None };
    if with_reference {
        arguments.skip(DEPTH).ok()?;
    }
    read_apply(arguments, kind)
}

fn spawn_kind(message: &Message<'_>) -> ActivityKind {
    let Some(mut options) = message.element(Role::Options) else { return ActivityKind::Spawn };
    let Ok(Token::List(count)) = options.token() else { return ActivityKind::Spawn };
    let mut kind = ActivityKind::Spawn;
    for _ in 0..count {
        match item(&mut options) {
            Ok(Token::Atom(option)) if option.is("link") => return ActivityKind::SpawnLink,
            Ok(Token::Atom(option)) if option.is("monitor") => kind = ActivityKind::SpawnMonitor,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    kind
}
