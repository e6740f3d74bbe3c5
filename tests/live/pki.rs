//! A certificate authority of the test's own, and the option files of nodes that use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::NodeOptions;
use super::lab::run;

/// What a node's TLS is like.
#[derive(Clone, Copy, Debug)]
pub struct TlsOptions<'a> {
    /// `tlsv1.2` or `tlsv1.3`.
    pub version: &'a str,
    /// Both sides show a certificate and check the other's.
    pub mutual: bool,
}

/// A folder of certificates.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// A new authority.
    ///
    /// # Panics
    /// Where openssl fails.
    #[must_use]
    pub fn new(parent: &Path) -> Self {
        let folder = parent.join("certificates");
        fs::create_dir(&folder).expect("a folder");
        let certificates = Self { folder };
        certificates.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "365",
            "-subj",
            "/O=Lab/CN=Lab CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        certificates
    }

    /// Words for a node at `address` that runs its distribution over TLS.
    ///
    /// # Panics
    /// Where openssl fails.
    #[must_use]
    pub fn node(&self, address: &str, tls: TlsOptions<'_>) -> NodeOptions {
        let name = format!("{address}-{}-{}", tls.version, tls.mutual);
        self.issue(&name, address);
        let path = |ending: &str| self.folder.join(format!("{name}.{ending}")).display().to_string();
        let authority = self.folder.join("ca.pem").display().to_string();
        let own = format!("{{certfile,\"{}\"}},{{keyfile,\"{}\"}}", path("pem"), path("key"));
        let common = format!("{{versions,['{}']}},{{cacertfile,\"{authority}\"}}", tls.version);
        let (server, client) = if tls.mutual {
            (
                format!("{common},{own},{{verify,verify_peer}},{{fail_if_no_peer_cert,true}}"),
                format!("{common},{own},{{verify,verify_peer}}"),
            )
        } else {
            (format!("{common},{own},{{verify,verify_none}}"), format!("{common},{{verify,verify_peer}}"))
        };
        fs::write(path("opt"), format!("[{{server,[{server}]}},{{client,[{client}]}}].\n")).expect("an option file");
        NodeOptions::flags(&["-proto_dist", "inet_tls", "-ssl_dist_optfile", &path("opt")])
    }

    fn issue(&self, name: &str, address: &str) {
        let file = |ending: &str| format!("{name}.{ending}");
        fs::write(self.folder.join(file("ext")), format!("subjectAltName=IP:{address},DNS:{address}\n"))
            .expect("a file");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/O=Lab/CN={address}"),
            "-keyout",
            &file("key"),
            "-out",
            &file("csr"),
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "90",
            "-extfile",
            &file("ext"),
            "-out",
            &file("pem"),
        ]);
    }

    fn openssl(&self, words: &[&str]) {
        run(Command::new("openssl").args(words).current_dir(&self.folder));
    }
}
