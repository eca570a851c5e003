//! Minting the bottle's certificate authorities.

use std::time::SystemTime;

use bottle_plan::Service;
use bottle_plan::resolved::{BuiltImage, EgressFacts};
use bottle_tls::{CaFiles, CaRole, CaSpec, CertificateAuthority, SystemRandom};

use super::context::Launch;
use super::files::make_dir;
use crate::launch_error::LaunchCause;

/// Locations of the certificate authorities.
pub(super) struct Authorities {
    pub(super) pipelock: CaFiles,
    pub(super) egress: Option<CaFiles>,
}

impl Authorities {
    pub(super) fn egress_facts(&self, launch: &Launch<'_>, image: &BuiltImage) -> Option<EgressFacts> {
        let CaFiles { combined, certificate, .. } = self.egress.clone()?;
        let (image, routes) = (image.clone(), launch.state.egress_routes());
        Some(EgressFacts { image, routes, ca_combined: combined, ca_cert: certificate })
    }
}

pub(super) fn mint(launch: &Launch<'_>) -> Result<Authorities, LaunchCause> {
    let mint_for = |role: CaRole, service: Service| -> Result<CaFiles, LaunchCause> {
        let dir = launch.state.service_dir(service);
        make_dir(&dir, 0o700)?;
        let spec = CaSpec::new(launch.plan.names.slug().as_str(), role, SystemTime::now())
            .with_lifetime(launch.plan.tls.lifetime.duration());
        Ok(CertificateAuthority::mint(&spec, &mut SystemRandom)?.write_to(&dir)?)
    };
    Ok(Authorities {
        pipelock: mint_for(CaRole::Pipelock, Service::Pipelock)?,
        egress: launch.plan.egress.as_ref().map(|_| mint_for(CaRole::Egress, Service::Egress)).transpose()?,
    })
}
