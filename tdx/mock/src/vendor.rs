//! The vendor: the root, who signs below it, and collateral.

use rcgen::Issuer;
use serde_json::{Value, json};
use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::measurement::Fmspc;
use zipnet_tdx::tcb::Status;

use crate::certificates::{Template, pem, revoked};
use crate::key::Key;

/// The enclave that signs quotes is known by this signer.
pub(crate) const ENCLAVE_SIGNER: [u8; 32] = [0x51; 32];
/// And by this product number.
pub(crate) const ENCLAVE_PRODUCT: u16 = 2;

/// How long certificates are valid.
const CERTIFICATE_DAYS: u64 = 30 * 365;

const ROOT_KEY_ID: u8 = 0xa0;
const PLATFORM_CA_KEY_ID: u8 = 0xa1;
const SIGNER_KEY_ID: u8 = 0xa2;
pub(crate) const PCK_KEY_ID: u8 = 0xa3;

/// A vendor of platforms.
pub struct Vendor {
    seed: Vec<u8>,
    valid: (Date, Date),
    root_key: Key,
    platform_ca_key: Key,
    signer_key: Key,
    root: Vec<u8>,
    platform_ca: Vec<u8>,
    signer: Vec<u8>,
}

impl Vendor {
    /// The vendor of this seed, in business since this date.
    #[must_use]
    pub fn new(seed: &[u8], since: Date) -> Self {
        let valid = (since, since.after(CERTIFICATE_DAYS * DAY));
        let key = |name: &str| Key::derive(seed, name);
        let (root_key, platform_ca_key, signer_key) = (key("root"), key("platform CA"), key("TCB signer"));
        let root =
            root_template(valid).params().self_signed(&root_key).expect("the template makes a certificate");
        let root = root.der().to_vec();
        let (platform_ca, signer) = {
            let root_params = root_template(valid).params();
            let issuer = Issuer::from_params(&root_params, &root_key);
            let signer = Template {
                name: "Simulated SGX TCB Signing",
                serial: 3,
                key_id: SIGNER_KEY_ID,
                is_ca: false,
                valid,
            };
            let platform_ca = platform_ca_template(valid).signed_by(&platform_ca_key, &issuer, None);
            (platform_ca, signer.signed_by(&signer_key, &issuer, None))
        };
        Self { seed: seed.to_vec(), valid, root_key, platform_ca_key, signer_key, root, platform_ca, signer }
    }

    /// The root, as a certificate in DER.
    #[must_use]
    pub fn root(&self) -> Vec<u8> {
        self.root.clone()
    }

    /// What it publishes, as a file of collateral.
    #[must_use]
    pub fn collateral(&self, bulletin: &Bulletin) -> String {
        let tcb_info = bulletin.tcb_info().to_string();
        let qe_identity = bulletin.qe_identity().to_string();
        let signed = |text: &str| hex::encode(self.signer_key.sign_raw(text.as_bytes()));
        let (root_params, ca_params) =
            (root_template(self.valid).params(), platform_ca_template(self.valid).params());
        let root = Issuer::from_params(&root_params, &self.root_key);
        let platform_ca = Issuer::from_params(&ca_params, &self.platform_ca_key);
        let signers = pem(&[&self.signer, &self.root]);
        let file = json!({
            "pck_crl_issuer_chain": pem(&[&self.platform_ca, &self.root]),
            "root_ca_crl": hex::encode(revoked(&root, ROOT_KEY_ID, bulletin.root_list, &[])),
            "pck_crl": hex::encode(revoked(&platform_ca, PLATFORM_CA_KEY_ID, bulletin.pck_list, &bulletin.revoked)),
            "tcb_info_issuer_chain": signers,
            "tcb_info": tcb_info,
            "tcb_info_signature": signed(&tcb_info),
            "qe_identity_issuer_chain": signers,
            "qe_identity": qe_identity,
            "qe_identity_signature": signed(&qe_identity),
        });
        file.to_string()
    }

    pub(crate) fn seed(&self) -> &[u8] {
        &self.seed
    }

    pub(crate) const fn valid(&self) -> (Date, Date) {
        self.valid
    }

    /// A PCK certificate, and the chain behind it.
    pub(crate) fn certify(
        &self,
        key: &Key,
        template: &Template,
        extension: rcgen::CustomExtension,
    ) -> String {
        let params = platform_ca_template(self.valid).params();
        let issuer = Issuer::from_params(&params, &self.platform_ca_key);
        let certificate = template.signed_by(key, &issuer, Some(extension));
        pem(&[&certificate, &self.platform_ca, &self.root])
    }
}

impl core::fmt::Debug for Vendor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Vendor(..)")
    }
}

fn root_template(valid: (Date, Date)) -> Template {
    Template { name: "Simulated SGX Root CA", serial: 1, key_id: ROOT_KEY_ID, is_ca: true, valid }
}

fn platform_ca_template(valid: (Date, Date)) -> Template {
    Template {
        name: "Simulated SGX PCK Platform CA",
        serial: 2,
        key_id: PLATFORM_CA_KEY_ID,
        is_ca: true,
        valid,
    }
}

/// What a vendor says about a kind of platform at a time.
#[derive(Clone, Debug)]
pub struct Bulletin {
    /// The kind.
    pub fmspc: Fmspc,
    /// From when on TCB info and QE identity are valid.
    pub issued: Date,
    /// Until when.
    pub next_update: Date,
    /// How many recoveries are taken into account.
    pub evaluation_number: u32,
    /// States of a platform, the newest one first.
    pub levels: Vec<Level>,
    /// Versions of the TDX module, the newest one first.
    pub modules: Vec<Version>,
    /// Versions of the quoting enclave, the newest one first.
    pub enclaves: Vec<Version>,
    /// When the root's list of revoked certificates was issued, and until when it is valid.
    pub root_list: (Date, Date),
    /// The same of the platform CA's list.
    pub pck_list: (Date, Date),
    /// The serial numbers of revoked PCK certificates; see [`crate::platform::Machine::serial`].
    pub revoked: Vec<u64>,
}

impl Bulletin {
    /// What is said in quiet times: one level, which every machine of [`crate::platform`] has by default, for 30 days.
    #[must_use]
    pub fn quiet(fmspc: Fmspc, issued: Date) -> Self {
        let next_update = issued.after(30 * DAY);
        let up_to_date = |svn| Version { svn, date: issued, status: Status::UpToDate, advisories: vec![] };
        Self {
            fmspc,
            issued,
            next_update,
            evaluation_number: 20,
            levels: vec![Level::default_at(issued)],
            modules: vec![up_to_date(2)],
            enclaves: vec![up_to_date(4)],
            root_list: (issued, issued.after(365 * DAY)),
            pck_list: (issued, next_update),
            revoked: vec![],
        }
    }

    fn tcb_info(&self) -> Value {
        let zeros = "00".repeat(48);
        json!({
            "id": "TDX",
            "version": 3,
            "issueDate": self.issued.to_string(),
            "nextUpdate": self.next_update.to_string(),
            "fmspc": self.fmspc.to_string().to_uppercase(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.evaluation_number,
            "tdxModule": { "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF" },
            "tdxModuleIdentities": [{
                "id": "TDX_01",
                "mrsigner": zeros,
                "attributes": "0000000000000000",
                "attributesMask": "FFFFFFFFFFFFFFFF",
                "tcbLevels": self.modules.iter().map(Version::to_json).collect::<Vec<_>>(),
            }],
            "tcbLevels": self.levels.iter().map(Level::to_json).collect::<Vec<_>>(),
        })
    }

    fn qe_identity(&self) -> Value {
        json!({
            "id": "TD_QE",
            "version": 2,
            "issueDate": self.issued.to_string(),
            "nextUpdate": self.next_update.to_string(),
            "tcbEvaluationDataNumber": self.evaluation_number,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex::encode_upper(ENCLAVE_SIGNER),
            "isvprodid": ENCLAVE_PRODUCT,
            "tcbLevels": self.enclaves.iter().map(Version::to_json).collect::<Vec<_>>(),
        })
    }
}

/// A state that a platform may have.
#[derive(Clone, Debug)]
pub struct Level {
    /// Least versions of the components of SGX.
    pub sgx: [u8; 16],
    /// Least version of the PCE.
    pub pce: u16,
    /// Least versions of the components of TDX.
    pub tdx: [u8; 16],
    /// When it was the newest one.
    pub date: Date,
    /// What is said of it.
    pub status: Status,
    /// Why.
    pub advisories: Vec<String>,
}

/// Versions of SGX's components that machines have by default.
pub(crate) const SGX: [u8; 16] = [4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same of TDX's components: module, its family, microcode.
pub(crate) const TDX: [u8; 16] = [5, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The version of the PCE.
pub(crate) const PCE: u16 = 11;

impl Level {
    /// What every machine has by default.
    #[must_use]
    pub const fn default_at(date: Date) -> Self {
        let mut tdx = TDX;
        tdx[1] = 0;
        Self { sgx: SGX, pce: PCE, tdx, date, status: Status::UpToDate, advisories: vec![] }
    }

    fn to_json(&self) -> Value {
        let names = [
            ("BIOS", "Early Microcode Update"),
            ("OS/VMM", "SGX Late Microcode Update"),
            ("OS/VMM", "TXT SINIT"),
            ("BIOS", ""),
        ];
        let component = |(place, svn): (usize, &u8)| match names.get(place) {
            Some((category, "")) => json!({ "svn": svn, "category": category }),
            Some((category, kind)) => json!({ "svn": svn, "category": category, "type": kind }),
            None => json!({ "svn": svn }),
        };
        let tdx = |(place, svn): (usize, &u8)| match place {
            0 | 1 => json!({ "svn": svn, "category": "OS/VMM", "type": "TDX Module" }),
            2 => json!({ "svn": svn, "category": "OS/VMM", "type": "TDX Late Microcode Update" }),
            _ => json!({ "svn": svn }),
        };
        json!({
            "tcb": {
                "sgxtcbcomponents": self.sgx.iter().enumerate().map(component).collect::<Vec<_>>(),
                "pcesvn": self.pce,
                "tdxtcbcomponents": self.tdx.iter().enumerate().map(tdx).collect::<Vec<_>>(),
            },
            "tcbDate": self.date.to_string(),
            "tcbStatus": self.status.to_string(),
            "advisoryIDs": self.advisories,
        })
    }
}

/// A version of the TDX module or of the quoting enclave.
#[derive(Clone, Debug)]
pub struct Version {
    /// The least number.
    pub svn: u8,
    /// When it was the newest one.
    pub date: Date,
    /// What is said of it.
    pub status: Status,
    /// Why.
    pub advisories: Vec<String>,
}

impl Version {
    fn to_json(&self) -> Value {
        json!({
            "tcb": { "isvsvn": self.svn },
            "tcbDate": self.date.to_string(),
            "tcbStatus": self.status.to_string(),
            "advisoryIDs": self.advisories,
        })
    }
}
