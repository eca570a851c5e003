//! Files of a bottle's state: the configuration of each sidecar.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bottle_plan::{Service, StateLayout};
use bottle_sidecars::{egress, git_gate, pipelock};
use ipnet::Ipv4Net;

use super::context::Launch;
use super::error::LaunchCause;
use super::write::{make_dir, write};

pub(super) fn upstream_ca(state: &StateLayout) -> PathBuf {
    state.service_dir(Service::Pipelock).join("upstream-ca.pem")
}

/// Maximum size of `tls.upstream_ca`, in bytes. The public web's roots take a twentieth of it.
const MAX_UPSTREAM_CA_BYTES: u64 = 4 << 20;

/// Reads `tls.upstream_ca` and returns its certificates, without the text between them. A block that is not a
/// certificate, such as a private key, is an error before a container can read it.
pub(super) fn read_upstream_ca(path: &Path) -> Result<String, LaunchCause> {
    let unusable = |problem: String| LaunchCause::Unusable {
        what: "the file of `tls.upstream_ca`".into(),
        path: path.to_owned(),
        problem,
    };
    let unreadable = |error: std::io::Error| unusable(format!("cannot be read: {error}"));
    // Checked first, because opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unusable("is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_UPSTREAM_CA_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_UPSTREAM_CA_BYTES {
        return Err(unusable(format!("is larger than {} MiB", MAX_UPSTREAM_CA_BYTES >> 20)));
    }
    // Comments may be in any encoding; certificates are ASCII.
    bottle_tls::extra_roots(&String::from_utf8_lossy(&bytes))
        .map_err(|source| LaunchCause::UpstreamCa { path: path.to_owned(), source })
}

/// Writes the configuration of every sidecar that the plan has.
pub(super) fn write_configuration(launch: &Launch<'_>, internal_cidr: Option<Ipv4Net>) -> Result<(), LaunchCause> {
    let (plan, state) = (&launch.plan, &launch.state);
    if let Some(bundle) = &plan.tls.upstream_ca {
        write(&upstream_ca(state), read_upstream_ca(bundle)?.as_bytes(), 0o644)?;
    }
    write(&state.pipelock_config(), pipelock::config(plan, internal_cidr).as_bytes(), 0o644)?;
    if let Some(egress_plan) = &plan.egress {
        write(&state.egress_routes(), egress::routes(egress_plan).as_bytes(), 0o644)?;
    }
    if let Some(gate) = &plan.git_gate {
        let dir = state.service_dir(Service::GitGate);
        make_dir(&dir, 0o700)?;
        for script in git_gate::SCRIPTS {
            write(&dir.join(script.path), script.content.as_bytes(), if script.executable { 0o755 } else { 0o644 })?;
        }
        write(&dir.join("upstreams.json"), git_gate::upstreams(gate).as_bytes(), 0o644)?;
        write(&dir.join("known_hosts"), git_gate::known_hosts(gate).as_bytes(), 0o644)?;
    }
    if plan.supervise.is_some() {
        make_dir(&state.supervise_queue(), 0o700)?;
        make_dir(&state.supervise_decisions(), 0o700)?;
        // The agent, as another user, may read it. The parent directory's mode keeps other users out.
        make_dir(&state.service_dir(Service::Agent), 0o700)?;
        make_dir(&state.current_config(), 0o755)?;
    }
    // Last, so that a plan on disk means that the files above match it.
    Ok(bottle_supervise::write_launched_plan(plan, state)?)
}

#[cfg(test)]
mod tests {
    use bottle_tls::{CaRole, CaSpec, CertificateAuthority, SystemRandom};

    use super::*;

    fn certificate() -> String {
        let spec = CaSpec::new("demo", CaRole::Egress, std::time::SystemTime::now());
        CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap().certificate_pem().to_owned()
    }

    #[test]
    fn a_company_bundle_of_several_certificates_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("company.pem");
        let (one, two) = (certificate(), certificate());
        // A comment in Latin-1, and the line ends of Windows.
        let mut bytes = b"# M\xfcller Root\r\n".to_vec();
        bytes.extend(format!("{one}\n# second\n{two}").replace('\n', "\r\n").into_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(read_upstream_ca(&path).unwrap(), format!("{one}{two}"));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("company.pem");
        fs::write(&path, "nothing\n").unwrap();
        for path in [path, dir.path().join("missing.pem"), dir.path().to_owned()] {
            let error = read_upstream_ca(&path).unwrap_err().to_string();
            assert!(error.contains("`tls.upstream_ca`") && error.contains(&path.display().to_string()), "{error}");
        }
    }
}
