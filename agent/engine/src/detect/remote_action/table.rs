//! Which module and function is which kind of remote action.

/// Kinds of action, each a rule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A shell.
    Shell,
    /// A command of the operating system.
    Command,
    /// Code is loaded, changed or evaluated.
    Code,
    /// Files.
    File,
    /// The node, its tracing, logging or membership.
    Control,
    /// None of these, though the module's other functions are.
    Nothing,
}

use Kind::{Code, Command, Control, File, Nothing, Shell};

/// Module, function (a `*` at the end stands for the rest) and what it is; the first that matches holds.
///
/// Elixir modules carry their prefix, as they do on the wire.
const CALLS: &[(&str, &str, Kind)] = &[
    // Shells: `erl -remsh`, IEx of any release (`docs/protocol.md` §7.5, §7.6).
    ("shell", "start*", Shell),
    ("shell", "server", Shell),
    ("user_drv", "start*", Shell),
    ("iex", "start", Shell),
    ("Elixir.IEx", "start", Shell),
    ("Elixir.IEx.Server", "run*", Shell),
    // Commands.
    ("os", "cmd", Command),
    ("erlang", "open_port", Command),
    ("erts_internal", "open_port", Command),
    ("exec", "run*", Command),
    ("rabbit_misc", "os_cmd", Command),
    ("Elixir.System", "cmd", Command),
    ("Elixir.System", "shell", Command),
    ("Elixir.Port", "open", Command),
    ("Elixir.MuonTrap", "cmd", Command),
    ("Elixir.Rambo", "run", Command),
    ("Elixir.Porcelain", "*", Command),
    // Code. `code:ensure_loaded` and the readers are what every shell and call begins with.
    ("code", "load_*", Code),
    ("code", "add_*", Code),
    ("code", "set_path*", Code),
    ("code", "replace_path*", Code),
    ("code", "del_*", Code),
    ("code", "delete", Code),
    ("code", "purge", Code),
    ("code", "soft_purge", Code),
    ("code", "atomic_load", Code),
    ("code", "finish_loading", Code),
    ("code", "unstick_*", Code),
    ("erlang", "load_module", Code),
    ("erlang", "load_nif", Code),
    ("erlang", "delete_module", Code),
    ("erlang", "purge_module", Code),
    ("erlang", "finish_loading", Code),
    ("erl_eval", "*", Code),
    ("erl_ddll", "load*", Code),
    ("erl_ddll", "try_load", Code),
    ("compile", "file", Code),
    ("compile", "forms", Code),
    ("compile", "noenv_f*", Code),
    ("c", "c", Code),
    ("c", "nc", Code),
    ("c", "nl", Code),
    ("c", "l", Code),
    ("c", "lm", Code),
    ("file", "eval", Code),
    ("file", "path_eval", Code),
    ("file", "script", Code),
    ("file", "path_script", Code),
    ("release_handler", "*", Code),
    ("dynamic_compile", "*", Code),
    ("meck", "*", Code),
    ("recon", "remote_load", Code),
    ("Elixir.Code", "eval_*", Code),
    ("Elixir.Code", "compile_*", Code),
    ("Elixir.Code", "load_file", Code),
    ("Elixir.Code", "require_file", Code),
    ("Elixir.Code", "append_path*", Code),
    ("Elixir.Code", "prepend_path*", Code),
    ("Elixir.Code", "delete_path*", Code),
    ("Elixir.Code", "purge_compiler_modules", Code),
    ("Elixir.Module", "create", Code),
    ("Elixir.Module", "eval_quoted", Code),
    ("Elixir.Kernel.ParallelCompiler", "*", Code),
    ("Elixir.IEx.Helpers", "c", Code),
    ("Elixir.IEx.Helpers", "l", Code),
    ("Elixir.IEx.Helpers", "nl", Code),
    ("Elixir.IEx.Helpers", "r", Code),
    ("Elixir.IEx.Helpers", "recompile", Code),
    // Files.
    ("file", "format_error", Nothing),
    ("file", "native_name_encoding", Nothing),
    ("file", "*", File),
    ("prim_file", "*", File),
    ("raw_file_io", "*", File),
    ("file_io_server", "*", File),
    ("filelib", "*", File),
    ("erl_prim_loader", "*", File),
    ("erl_tar", "*", File),
    ("zip", "*", File),
    ("Elixir.File", "*", File),
    ("Elixir.File.Stream", "*", File),
    ("Elixir.Path", "wildcard", File),
    // The node itself.
    ("init", "stop", Control),
    ("init", "restart", Control),
    ("init", "reboot", Control),
    ("erlang", "halt", Control),
    ("erlang", "set_cookie", Control),
    ("erlang", "trace*", Control),
    ("erlang", "disconnect_node", Control),
    ("erlang", "suspend_process", Control),
    ("erlang", "system_flag", Control),
    ("heart", "set_*", Control),
    ("heart", "clear_*", Control),
    ("os", "putenv", Control),
    ("os", "unsetenv", Control),
    ("application", "stop", Control),
    ("application", "unload", Control),
    ("application", "set_env", Control),
    ("application", "unset_env", Control),
    ("supervisor", "terminate_child", Control),
    ("supervisor", "delete_child", Control),
    ("rabbit", "stop*", Control),
    ("mnesia", "stop", Control),
    ("mnesia", "delete_schema", Control),
    ("Elixir.System", "halt", Control),
    ("Elixir.System", "stop", Control),
    ("Elixir.System", "restart", Control),
    ("Elixir.System", "put_env", Control),
    ("Elixir.System", "delete_env", Control),
    ("Elixir.Application", "stop", Control),
    ("Elixir.Application", "put_*", Control),
    ("Elixir.Application", "delete_env", Control),
    ("Elixir.Supervisor", "terminate_child", Control),
    ("Elixir.Supervisor", "delete_child", Control),
    // Tracing, and changing what runs.
    ("dbg", "*", Control),
    ("ttb", "*", Control),
    ("trace", "*", Control),
    ("int", "*", Control),
    ("observer_backend", "ttb_*", Control),
    ("recon_trace", "*", Control),
    ("redbug", "*", Control),
    ("seq_trace", "set_*", Control),
    ("sys", "replace_state", Control),
    ("sys", "change_code", Control),
    ("sys", "suspend", Control),
    ("sys", "terminate", Control),
    ("sys", "trace", Control),
    ("sys", "install", Control),
    // Logging. Its readers (`get_*`, `i`, `compare_levels`) are harmless.
    ("logger", "set_*", Control),
    ("logger", "add_*", Control),
    ("logger", "remove_*", Control),
    ("logger", "update_*", Control),
    ("logger", "unset_*", Control),
    ("logger", "reconfigure", Control),
    ("error_logger", "tty", Control),
    ("error_logger", "logfile", Control),
    ("error_logger", "add_report_handler", Control),
    ("error_logger", "delete_report_handler", Control),
    ("lager", "set_*", Control),
    ("Elixir.Logger", "configure*", Control),
    ("Elixir.Logger", "put_*", Control),
    ("Elixir.Logger", "delete_*", Control),
    ("Elixir.Logger", "add_*", Control),
    ("Elixir.Logger", "remove_*", Control),
    ("Elixir.Logger", "disable", Control),
    // Membership. `net_kernel:get_*` and `nodes_info` are read by every shell.
    ("net_kernel", "allow", Control),
    ("net_kernel", "connect*", Control),
    ("net_kernel", "hidden_connect*", Control),
    ("net_kernel", "disconnect*", Control),
    ("net_kernel", "set_*", Control),
    ("net_kernel", "setopts", Control),
    ("net_kernel", "start", Control),
    ("net_kernel", "stop", Control),
    ("net_kernel", "verbose", Control),
    ("Elixir.Node", "connect", Control),
    ("Elixir.Node", "disconnect", Control),
    ("Elixir.Node", "set_cookie", Control),
    ("Elixir.Node", "start", Control),
    ("Elixir.Node", "stop", Control),
];

/// Registered processes whose calls from another node are an action by themselves.
const SERVERS: &[(&str, Kind)] = &[
    ("file_server_2", File),
    ("code_server", Code),
    ("logger", Control),
    ("erl_prim_loader", File),
    ("ddll_server", Code),
];

/// Modules whose funs carry code that was written elsewhere: typed into a shell, or evaluated.
const EVALUATORS: [&str; 4] = ["erl_eval", "Elixir.IEx.Evaluator", "Elixir.Code", "elixir"];

/// The kind of a call, by module and function.
pub(super) fn kind_of_call(module: &str, function: &str) -> Kind {
    let found = CALLS.iter().find(|(m, f, _)| *m == module && matches(f, function));
    found.map_or(Nothing, |&(_, _, kind)| kind)
}

/// The kind of a call to a registered process.
pub(super) fn kind_of_server(name: &str) -> Kind {
    SERVERS.iter().find(|(server, _)| *server == name).map_or(Nothing, |&(_, kind)| kind)
}

/// The kind of a fun that is run, by the module it was made in.
pub(super) fn kind_of_fun(module: &str) -> Kind {
    if EVALUATORS.contains(&module) { Code } else { Nothing }
}

fn matches(pattern: &str, function: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => function.starts_with(start),
        None => pattern == function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_recognised() {
        for (module, function, kind) in [
            ("os", "cmd", Command),
            ("Elixir.System", "cmd", Command),
            ("code", "load_binary", Code),
            ("Elixir.Code", "eval_string", Code),
            ("c", "nl", Code),
            ("file", "read_file", File),
            ("file", "script", Code),
            ("Elixir.File", "write!", File),
            ("init", "stop", Control),
            ("logger", "set_primary_config", Control),
            ("erlang", "trace_pattern", Control),
            ("shell", "start", Shell),
            ("Elixir.IEx", "start", Shell),
        ] {
            assert_eq!(kind_of_call(module, function), kind, "{module}:{function}");
        }
    }

    #[test]
    fn what_every_node_and_shell_says_is_nothing() {
        for (module, function) in [
            ("code", "ensure_loaded"),
            ("code", "which"),
            ("code", "is_loaded"),
            ("net_kernel", "get_net_ticktime"),
            ("erlang", "system_info"),
            ("erlang", "whereis"),
            ("erlang", "garbage_collect"),
            ("erlang", "memory"),
            ("application", "get_env"),
            ("application", "which_applications"),
            ("logger", "get_primary_config"),
            ("group", "whereis_shell"),
            ("edlin_expand", "expand"),
            ("Elixir.IEx.Autocomplete", "expand"),
            ("rabbit", "status"),
            ("file", "format_error"),
            ("sys", "get_state"),
            ("souvenir", "hello"),
            ("init", "get_status"),
        ] {
            assert_eq!(kind_of_call(module, function), Nothing, "{module}:{function}");
        }
    }
}
