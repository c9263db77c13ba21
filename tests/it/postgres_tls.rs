//! libpq's `sslmode` against a real server whose certificate names `localhost` and not its address.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daraji::collect::config::{PostgresConfig, SslMode};

use crate::postgres_server::{Programs, Server, append};

const CONFIGURATION: &str = "listen_addresses = 'localhost'\nunix_socket_directories = ''\nfsync = off\nssl = on\n\
    shared_buffers = 16MB\nmax_connections = 20\n";
const ACCESS: &str = "hostssl all daraji all trust\nhostnossl all daraji all reject\nhost all postgres all trust\n";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

#[tokio::test]
async fn every_sslmode_proves_what_it_promises() {
    daraji::platform::tls::install();
    let programs = Programs::find(15);
    let dir = programs.own_dir();
    let data = dir.path().join("data");
    programs.run(
        "initdb",
        &["-D", data.to_str().unwrap(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
    );
    append(&data.join("postgresql.conf"), CONFIGURATION);
    std::fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
    for (name, mode) in [("server.pem", 0o644), ("server.key", 0o600)] {
        let place = data.join(name.replace(".pem", ".crt"));
        std::fs::copy(fixture(name), &place).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
        programs.own(&place);
    }
    let server = Server::start(&programs, &data);
    let setup = "CREATE ROLE daraji LOGIN IN ROLE pg_monitor";
    server.client().await.batch_execute(setup).await.unwrap();

    let (ca, other) = (Some("ca.pem"), Some("other-ca.pem"));
    for (mode, roots, host, refused) in [
        (SslMode::Disable, None, "localhost", Some("pg_hba.conf")),
        (SslMode::Prefer, None, "localhost", None),
        (SslMode::Require, None, "127.0.0.1", None),
        (SslMode::Require, other, "localhost", Some("sslrootcert")),
        (SslMode::VerifyCa, ca, "127.0.0.1", None),
        (SslMode::VerifyCa, other, "localhost", Some("sslrootcert")),
        (SslMode::VerifyFull, ca, "localhost", None),
        (SslMode::VerifyFull, ca, "127.0.0.1", Some("sslrootcert")),
        (SslMode::VerifyFull, None, "localhost", Some("sslrootcert")),
    ] {
        let config = PostgresConfig {
            user: Some("daraji".into()),
            database: Some("postgres".into()),
            sslmode: Some(mode),
            sslrootcert: roots.map(fixture),
            ..PostgresConfig::default()
        };
        let result = server.ask(host, &config).await;
        match (result, refused) {
            (Ok(report), None) => assert!(!report.status.in_recovery),
            (Err(error), Some(hint)) => assert!(error.contains(hint), "{mode:?} {roots:?} {host}: {error}"),
            (result, _) => panic!("{mode:?} {roots:?} {host}: {result:?}"),
        }
    }
}
