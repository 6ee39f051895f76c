//! Whoever is no zipnet node: QUIC by hand, with its own idea of keys and streams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::time::timeout;
use zipnet_core::id::UniqueId;
use zipnet_core::key::{Identity, NodeSecret};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a stranger waits for what it should not get.
const IN_VAIN: Duration = Duration::from_millis(500);

/// What a stranger shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Its key, as zipnet nodes do.
    Key,
    /// Its key, to speak another protocol.
    KeyForAnotherProtocol,
    /// The key of another node, while it signs with its own.
    AnothersKey,
    /// A certificate.
    Certificate,
    /// Nothing at all.
    Nothing,
}

/// A stranger and its connection with a node.
pub(crate) struct Stranger {
    _endpoint: quinn::Endpoint,
    quic: quinn::Connection,
    streams: Vec<SendStream>,
}

impl Stranger {
    /// Dials a node.
    pub(crate) async fn dial(name: &str, shows: Shows, to: SocketAddr) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("it is supported")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous { raw: true }));
        let mut tls = match resolver(name, shows) {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = alpn(shows);
        let tls = QuicClientConfig::try_from(tls).expect("TLS 1.3 has what QUIC needs");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = quinn::Endpoint::client(any).expect("loopback has free ports");
        let connecting = endpoint
            .connect_with(quinn::ClientConfig::new(Arc::new(tls)), to, "zipnet")
            .map_err(|error| error.to_string())?;
        let quic = timeout(PATIENCE, connecting).await.map_err(|error| error.to_string())?;
        let quic = quic.map_err(|error| error.to_string())?;
        Ok(Self { _endpoint: endpoint, quic, streams: Vec::new() })
    }

    /// Opens a stream and says something, but does not end.
    pub(crate) async fn says(mut self, bytes: &[u8]) -> Self {
        let stream = timeout(PATIENCE, self.quic.open_uni()).await.expect("the first streams are granted");
        // A node that has seen enough closes the connection under way.
        if let Ok(mut stream) = stream {
            drop(stream.write_all(bytes).await);
            self.streams.push(stream);
        }
        self
    }

    /// Opens a stream, says something and ends it.
    pub(crate) async fn says_and_ends(self, bytes: &[u8]) -> Self {
        let mut told = self.says(bytes).await;
        if let Some(stream) = told.streams.last_mut() {
            drop(stream.finish());
        }
        told
    }

    /// Says more on a stream that was opened before.
    pub(crate) async fn continues(&mut self, stream: usize, bytes: &[u8]) {
        self.streams[stream].write_all(bytes).await.expect("the stream is open");
    }

    pub(crate) async fn gets_another_stream(&self) -> bool {
        timeout(IN_VAIN, self.quic.open_uni()).await.is_ok()
    }

    pub(crate) async fn gets_a_stream_both_ways(&self) -> bool {
        timeout(IN_VAIN, self.quic.open_bi()).await.is_ok()
    }

    /// Waits for the end of the connection: the code, if it was a node that closed it.
    pub(crate) async fn closed(&self) -> Option<u64> {
        match self.quic.closed().await {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        }
    }
}

/// Listens as something that is no zipnet node, or as one.
pub(crate) fn server(name: &str, shows: Shows) -> (quinn::Endpoint, SocketAddr) {
    let provider = Arc::new(ring::default_provider());
    let resolver: Arc<dyn ResolvesServerCert> = match shows {
        Shows::Key | Shows::KeyForAnotherProtocol | Shows::AnothersKey => {
            Arc::new(AlwaysResolvesServerRawPublicKeys::new(raw_key(name, shows)))
        }
        Shows::Certificate | Shows::Nothing => Arc::new(SingleCertAndKey::from(certificate(name))),
    };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it is supported")
        .with_client_cert_verifier(Arc::new(Credulous { raw: shows != Shows::Certificate }))
        .with_cert_resolver(resolver);
    tls.alpn_protocols = alpn(shows);
    let tls = QuicServerConfig::try_from(tls).expect("TLS 1.3 has what QUIC needs");
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = quinn::Endpoint::server(config, any).expect("loopback has free ports");
    let address = endpoint.local_addr().expect("it is bound");
    let accepting = endpoint.clone();
    drop(tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            drop(tokio::spawn(async move {
                if let Ok(quic) = incoming.await {
                    quic.closed().await;
                }
            }));
        }
    }));
    (endpoint, address)
}

fn alpn(shows: Shows) -> Vec<Vec<u8>> {
    match shows {
        Shows::KeyForAnotherProtocol => vec![b"h3".to_vec()],
        Shows::Key | Shows::AnothersKey | Shows::Certificate | Shows::Nothing => vec![b"zipnet/1".to_vec()],
    }
}

fn resolver(name: &str, shows: Shows) -> Option<Arc<dyn ResolvesClientCert>> {
    match shows {
        Shows::Key | Shows::KeyForAnotherProtocol | Shows::AnothersKey => {
            Some(Arc::new(AlwaysResolvesClientRawPublicKeys::new(raw_key(name, shows))))
        }
        Shows::Certificate => Some(Arc::new(SingleCertAndKey::from(certificate(name)))),
        Shows::Nothing => None,
    }
}

fn identity(name: &str) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(name).0))
}

/// An ed25519 key as RFC 8410 has it, and what it signs with.
fn raw_key(name: &str, shows: Shows) -> Arc<CertifiedKey> {
    let shown = if shows == Shows::AnothersKey { identity("somebody else") } else { identity(name) };
    let mut public = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    public.extend(shown.peer().as_bytes());
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signing(name)))
}

/// Something that is called a certificate: nobody who refuses certificates looks at more.
fn certificate(name: &str) -> CertifiedKey {
    CertifiedKey::new(vec![CertificateDer::from(b"a certificate".to_vec())], signing(name))
}

fn signing(name: &str) -> Arc<dyn rustls::sign::SigningKey> {
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend(identity(name).seed().as_slice());
    ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).expect("every seed is a key")
}

/// Believes everything.
#[derive(Debug)]
struct Credulous {
    raw: bool,
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for Credulous {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}
