//! The name of a resource, and every name that is made from it.
//!
//! Owns what a resource may be called (name and prefix become parts of file names and of an environment variable) and
//! the four names that others look for: the resource, the variable in the pod, the socket for kubelet, the file for
//! Multus. What always holds: a [`Resource`] has neither a slash nor `..` in its parts.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};

use crate::addr::PciAddress;
use crate::error::{Error, Result};

use super::json;

/// The prefix of resources whose configuration names none.
pub const DEFAULT_PREFIX: &str = "intel.com";

/// Longest path of a Unix socket, in bytes: `sun_path` has 108 with the zero at its end (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// Longest name and longest prefix of a resource, in bytes (Kubernetes' qualified names).
const LONGEST_NAME: usize = 63;
const LONGEST_PREFIX: usize = 253;

/// The name under which pods ask for devices, such as `intel.com/intel_sriov_dpdk`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    prefix: String,
    name: String,
}

/// The file that tells Multus about a device that a pod was given (device information of the Kubernetes network
/// plumbing working group).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfoFile {
    /// Its name in `/var/run/k8s.cni.cncf.io/devinfo/dp`.
    pub name: String,
    /// What it holds.
    pub content: String,
}

impl Resource {
    /// The resource `prefix/name`.
    ///
    /// # Errors
    /// [`Error::Parse`] when a part has other characters than Kubernetes allows, or is too long for it.
    pub fn new(prefix: &str, name: &str) -> Result<Resource> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(|c| plain(c) || c == '_') {
            return Err(Error::Parse(format!(
                "'{name}' cannot be the name of a resource: 1 to {LONGEST_NAME} letters, digits, '_' and '-', like \
                 intel_sriov_dpdk (the part before the slash goes into resourcePrefix)"
            )));
        }
        // Labels between dots must not be empty, so there is no `..` and no dot at either end.
        let labels_are_plain = prefix.split('.').all(|label| !label.is_empty() && label.chars().all(plain));
        if prefix.len() > LONGEST_PREFIX || !labels_are_plain {
            return Err(Error::Parse(format!(
                "'{prefix}' cannot be the prefix of a resource: a domain name of letters, digits and '-' between single \
                 dots, at most {LONGEST_PREFIX} bytes, like intel.com"
            )));
        }
        Ok(Resource { prefix: prefix.to_owned(), name: name.to_owned() })
    }

    /// The variable that holds the addresses: `PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK`. Only dots are replaced.
    pub fn variable(&self) -> String {
        format!("PCIDEVICE_{}_{}", self.prefix, self.name).replace('.', "_").to_ascii_uppercase()
    }

    /// Where the plugin of this resource listens in kubelet's directory of device plugins.
    ///
    /// # Errors
    /// [`Error::Config`] when the path is longer than a socket's may be.
    pub fn socket_path(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join(format!("{}_{}.sock", self.prefix, self.name));
        let length = path.as_os_str().len();
        if length > LONGEST_SOCKET_PATH {
            return Err(Error::Config(format!(
                "{self}: the socket {} would have {length} bytes, and a socket's path may have {LONGEST_SOCKET_PATH}; \
                 shorten the resource's name or prefix by {}",
                path.display(),
                length - LONGEST_SOCKET_PATH
            )));
        }
        Ok(path)
    }

    /// The file that tells Multus about one device of this resource.
    pub fn device_info(&self, address: PciAddress) -> DeviceInfoFile {
        let address = address.to_string();
        let pci = json::object([("pci-address", json::string(&address))]);
        DeviceInfoFile {
            name: format!("{}-{}-{address}-device.json", self.prefix, self.name),
            content: json::object([("type", json::string("pci")), ("version", json::string("1.1.0")), ("pci", pci)]),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_resource() {
        let resource = Resource::new("intel.com", "intel_sriov-dpdk").unwrap();
        assert_eq!(resource.to_string(), "intel.com/intel_sriov-dpdk");
        // The hyphen stays, as sriov-network-device-plugin leaves it.
        assert_eq!(resource.variable(), "PCIDEVICE_INTEL_COM_INTEL_SRIOV-DPDK");
        assert_eq!(resource.socket_path(Path::new("/d")).unwrap(), Path::new("/d/intel.com_intel_sriov-dpdk.sock"));
        let info = resource.device_info("0000:4b:01.0".parse().unwrap());
        assert_eq!(info.name, "intel.com-intel_sriov-dpdk-0000:4b:01.0-device.json");
        assert_eq!(info.content, r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:4b:01.0"}}"#);
    }

    #[test]
    fn names_that_would_leave_their_directory_are_refused() {
        for name in ["", "a/b", "..", "a.b", "a b", "é", "a\0", &"x".repeat(64)] {
            assert!(Resource::new("intel.com", name).unwrap_err().to_string().contains("intel_sriov_dpdk"), "{name}");
        }
        for prefix in ["", "..", "a..b", ".a", "a.", "a/b", "../../etc", "a_b", &"x".repeat(254)] {
            assert!(Resource::new(prefix, "x").unwrap_err().to_string().contains("like intel.com"), "{prefix}");
        }
    }

    #[test]
    fn a_socket_s_path_has_at_most_107_bytes() {
        let directory = Path::new("/var/lib/kubelet/device-plugins");
        let fits = 107 - "/var/lib/kubelet/device-plugins/intel.com_.sock".len();
        let longest = Resource::new("intel.com", &"x".repeat(fits)).unwrap();
        assert_eq!(longest.socket_path(directory).unwrap().as_os_str().len(), 107);
        let error = Resource::new("intel.com", &"x".repeat(fits + 1)).unwrap().socket_path(directory).unwrap_err();
        assert!(error.to_string().contains("108 bytes") && error.to_string().contains("by 1"), "{error}");
    }
}
