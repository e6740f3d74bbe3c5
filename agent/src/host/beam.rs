//! What the command line of a process tells of an Erlang node. The cookie, which may stand there too, is skipped.

/// What a command line says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The name as given, with or without a host: `-name`, `-sname`.
    pub name: Option<String>,
    /// Distribution runs over TLS: `-proto_dist inet_tls`, `inet6_tls`.
    pub tls: bool,
    /// The protocol of distribution, where one is given.
    pub proto_dist: Option<String>,
    /// The ports that distribution may listen on, where the command line says.
    pub listen: Option<(u16, u16)>,
    /// Whether a cookie stands on the command line. Which one is not kept.
    pub has_cookie: bool,
    /// It is hidden: `-hidden`.
    pub hidden: bool,
}

/// The names of the emulator's executable: `beam.smp` since OTP 21; with a type or flavour in between where it was built for
/// debugging.
#[must_use]
pub fn is_emulator(executable: &str) -> bool {
    let file = executable.rsplit('/').next().unwrap_or(executable);
    // The kernel says so of a file that an upgrade replaced.
    let file = file.strip_suffix(" (deleted)").unwrap_or(file);
    file == "beam" || file == "beam.smp" || (file.starts_with("beam.") && file.ends_with(".smp"))
}

/// Whether it is the port mapper daemon.
#[must_use]
pub fn is_epmd(executable: &str) -> bool {
    let file = executable.rsplit('/').next().unwrap_or(executable);
    file.strip_suffix(" (deleted)").unwrap_or(file) == "epmd"
}

impl Arguments {
    /// Reads the arguments of an emulator: what `erlexec` and the start scripts of releases, of Elixir, RabbitMQ and ejabberd
    /// made of theirs. Files of arguments have been put in their place by then.
    #[must_use]
    pub fn read<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        let (mut from, mut to, mut fixed) = (None, None, None);
        let mut arguments = arguments.into_iter().peekable();
        while let Some(flag) = arguments.next() {
            // What follows is the application's own.
            if flag == "-extra" {
                break;
            }
            let mut value = || arguments.next_if(|value| !value.starts_with('-'));
            match flag {
                "-name" | "-sname" => read.name = value().map(str::to_owned).or(read.name),
                "-setcookie" => {
                    // With two values the first is the node that the cookie is for.
                    while value().is_some() {
                        read.has_cookie = true;
                    }
                }
                "-proto_dist" => read.proto_dist = value().map(str::to_owned).or(read.proto_dist),
                "-hidden" => read.hidden = true,
                "-erl_epmd_port" | "-dist_listen_port" => fixed = value().and_then(port).or(fixed),
                "-kernel" => {
                    while let Some(key) = value() {
                        let Some(setting) = value() else { break };
                        match key {
                            "inet_dist_listen_min" => from = port(setting),
                            "inet_dist_listen_max" => to = port(setting),
                            "erl_epmd_node_listen_port" => fixed = port(setting),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        read.tls = read.proto_dist.as_deref().is_some_and(|protocol| protocol.ends_with("_tls"));
        // A minimum alone is a port (kernel's documentation), a maximum alone has no effect.
        let range = from.map(|from| (from, to.unwrap_or(from)));
        read.listen = fixed.map(|port| (port, port)).or(range);
        read
    }

    /// The full name, as far as it can be told. A host is added to a short name only where the process is known to have this
    /// host's name.
    #[must_use]
    pub fn node(&self, host: Option<&str>) -> Option<String> {
        let name = self.name.as_deref()?;
        if name.contains('@') {
            return Some(name.to_owned());
        }
        Some(host.map_or_else(|| name.to_owned(), |host| format!("{name}@{host}")))
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Arguments {
        Arguments::read(line.split(' '))
    }

    #[test]
    fn a_rabbit_is_read() {
        let arguments = read(
            "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -MBas ageffcbf -P 1048576 -- -root /usr/lib/erlang -bindir \
             /usr/lib/erlang/erts-13.1.5/bin -progname erl -- -home /var/lib/rabbitmq -- -pa  -noshell -noinput -s rabbit \
             boot -boot start_sasl -syslog logger [] -kernel prevent_overlapping_partitions false -sname rabbit@shop \
             -kernel inet_dist_listen_min 25672 -kernel inet_dist_listen_max 25672",
        );
        assert_eq!(arguments.listen, Some((25672, 25672)));
        assert_eq!(arguments.node(Some("elsewhere")).as_deref(), Some("rabbit@shop"));
        assert!(!arguments.tls && !arguments.has_cookie);
    }

    #[test]
    fn a_release_with_tls_is_read_and_its_cookie_is_not() {
        let arguments = read(
            "beam.smp -- -root /opt/app -- -boot bin/start -name web@10.0.0.1 -setcookie H0pefullySecret -proto_dist inet6_tls \
             -ssl_dist_optfile /etc/tls.conf -kernel inet_dist_listen_min 9100 inet_dist_listen_max 9155 -hidden -extra -name no",
        );
        assert!(arguments.tls && arguments.has_cookie && arguments.hidden);
        assert_eq!(arguments.proto_dist.as_deref(), Some("inet6_tls"));
        assert_eq!(arguments.listen, Some((9100, 9155)));
        assert_eq!(arguments.name.as_deref(), Some("web@10.0.0.1"));
        assert!(!format!("{arguments:?}").contains("H0pefully"));
    }

    #[test]
    fn a_short_name_gets_the_host_only_where_it_is_known() {
        let arguments = read("beam.smp -sname iex");
        assert_eq!(arguments.node(Some("shop")).as_deref(), Some("iex@shop"));
        assert_eq!(arguments.node(None).as_deref(), Some("iex"));
        assert_eq!(read("beam.smp -noshell -name").node(Some("shop")), None);
        assert_eq!(read("beam.smp -setcookie a@b secret -sname x").name.as_deref(), Some("x"));
    }

    #[test]
    fn emulators_and_port_mappers_are_known_by_their_file() {
        for path in ["/usr/lib/erlang/erts-13.1.5/bin/beam.smp", "beam.smp (deleted)", "beam.debug.smp", "beam"] {
            assert!(is_emulator(path), "{path}");
        }
        for path in ["/usr/bin/beamer", "erl_child_setup", "beam.smp.sh", ""] {
            assert!(!is_emulator(path), "{path}");
        }
        assert!(is_epmd("/usr/bin/epmd") && !is_epmd("/usr/bin/epmdx"));
    }
}
