//! What stands in the way: sockets and files of others, configurations that cannot be, places that cannot be written.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};

use vfring_tests::kubelet::{Kubelet, Manner};
use vfring_tests::vm::Result;

use crate::bed::{CONFIG, Host, RESOURCE};

/// A kubelet that leaves what it finds, so that only the plugin can have removed something.
const GENTLE: Manner = Manner { keeps_sockets: true, dials_later: false, wipes_after: 0 };

#[test]
fn a_socket_on_which_another_listens_is_left_alone_until_it_goes() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), GENTLE)?;
    let other = UnixListener::bind(host.socket()).expect("a socket");
    let inode = fs::metadata(host.socket()).expect("a socket").ino();
    let plugin = host.start(&[])?;
    plugin.complains("another process listens on it")?;
    // It tries on, and says so no more.
    assert!(UnixStream::connect(host.socket()).is_ok());
    assert_eq!(fs::metadata(host.socket()).expect("a socket").ino(), inode);
    assert!(kubelet.registrations().is_empty());
    drop(other);
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(plugin.complaints("another process listens on it"), 1, "{}", plugin.program.evidence());
    Ok(())
}

#[test]
fn what_is_no_socket_or_another_user_s_is_left_alone_until_it_goes() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), GENTLE)?;
    fs::write(host.socket(), "mine").expect("a file");
    let plugin = host.start(&[])?;
    plugin.complains("it is no socket")?;
    assert_eq!(fs::read_to_string(host.socket()).expect("a file"), "mine");
    fs::remove_file(host.socket()).expect("a file");
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    drop(plugin);
    // Left by a process of another user; the tests run as root.
    fs::remove_file(host.socket()).expect("the socket of the killed plugin");
    drop(UnixListener::bind(host.socket()).expect("a socket"));
    chown(host.socket(), Some(12345), None).expect("tests run as root");
    let plugin = host.start(&[])?;
    plugin.complains("it is a socket of user 12345")?;
    assert!(fs::symlink_metadata(host.socket()).expect("a socket").file_type().is_socket());
    Ok(())
}

#[test]
fn what_an_earlier_run_left_is_replaced_and_other_names_are_not_touched() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), GENTLE)?;
    drop(UnixListener::bind(host.socket()).expect("a socket"));
    let stranger = host.plugins().join("example.com_other.sock");
    drop(UnixListener::bind(&stranger).expect("a socket"));
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert!(fs::symlink_metadata(&stranger).is_ok());
    let ended = plugin.end()?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(fs::symlink_metadata(&stranger).is_ok() && !host.socket().exists());
    Ok(())
}

#[test]
fn a_socket_that_took_the_place_of_ours_is_not_removed_at_the_end() -> Result<()> {
    let host = Host::new();
    let plugin = host.start(&["--interval=60"])?;
    plugin.wait("the socket", || UnixStream::connect(host.socket()).is_ok())?;
    let aside = host.path("aside.sock");
    let other = UnixListener::bind(&aside).expect("a socket");
    fs::rename(&aside, host.socket()).expect("kubelet's directory can be written");
    let ended = plugin.end()?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(UnixStream::connect(host.socket()).is_ok());
    drop(other);
    Ok(())
}

#[test]
fn a_first_configuration_that_cannot_be_read_ends_it_in_one_line() -> Result<()> {
    let host = Host::new();
    let refused = |more: &[&str], parts: &[&str]| -> Result<()> {
        let ended = host.run("run", more)?;
        assert_eq!((ended.code, ended.stderr.matches('\n').count()), (1, 1), "{ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "'{part}' is not in: {}", ended.stderr);
        }
        Ok(())
    };
    host.config("{\n  \"resourceList\": [,]\n}");
    refused(&[], &["config.json", "line 2 column 20"])?;
    refused(&["--config=/nonexistent.json"], &["/nonexistent.json", "--config"])?;
    host.config(CONFIG);
    refused(&["--metrics=nowhere"], &["--metrics nowhere", "off"])?;
    refused(&["--interval=0"], &["--interval 0"])?;
    refused(&["--metrics=203.0.113.1:1"], &["203.0.113.1:1", "--metrics"])
}

#[test]
fn pools_with_errors_are_said_and_the_others_are_served() -> Result<()> {
    let host = Host::new();
    let long = "x".repeat(63);
    host.config(&format!(
        r#"{{"resourceList": [
            {{"resourceName": "guide", "selectors": {{"pfName": ["ens802f0"]}}}},
            {{"resourceName": "../x"}},
            {{"resourceName": "{long}", "resourcePrefix": "a-domain-that-is-long.example.com"}},
            {{"resourceName": "intel_sriov_dpdk", "selectors": {{"devices": ["1520"]}}}}]}}"#
    ));
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    for part in ["'pfNames' is probably meant", "cannot be the name of a resource", "a socket's path may have 107"] {
        assert_eq!(plugin.complaints(part), 1, "{part}: {}", plugin.program.errors());
    }
    assert_eq!(kubelet.registrations().len(), 1);
    Ok(())
}

#[test]
fn with_nothing_to_serve_it_waits_for_another_configuration() -> Result<()> {
    let host = Host::new();
    host.config("{\"resourceList\": []}");
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    plugin.complains("no pool can be served")?;
    host.config(CONFIG);
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    Ok(())
}

#[test]
fn options_of_sriov_network_device_plugin_are_understood() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let config = host.path("config.json").display().to_string();
    let _plugin = host.start(&["-config-file", &config, "-resource-prefix=example.com"])?;
    kubelet.wait_for_healthy("example.com/intel_sriov_dpdk", 4)?;
    Ok(())
}

#[test]
fn without_a_place_for_device_information_pods_get_devices_all_the_same() -> Result<()> {
    let host = Host::new();
    // No directory can be made below a file.
    host.tree.file("devinfo", "");
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    plugin.complains("--device-info-dir")?;
    kubelet.allocate(RESOURCE, &["0000:03:10.0"]).expect("a healthy VF");
    host.unplug(1);
    kubelet.wait_for(RESOURCE, |devices| devices[1].health == "Unhealthy")?;
    assert_eq!(plugin.complaints("--device-info-dir"), 1, "{}", plugin.program.errors());
    Ok(())
}

#[test]
fn in_a_directory_that_cannot_be_written_it_says_so_once_and_tries_on() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), GENTLE)?;
    let mode = |mode| fs::set_permissions(host.plugins(), fs::Permissions::from_mode(mode)).expect("it is ours");
    mode(0o555);
    // Root may write where its mode forbids that, but not without its capabilities, which the DaemonSet drops too.
    let plugin = host.start_through("setpriv", &["--bounding-set=-all"])?;
    plugin.complains("the plugin must be able to write to kubelet's directory, which --plugin-dir names")?;
    plugin.complains("Permission denied")?;
    assert!(kubelet.registrations().is_empty());
    mode(0o755);
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    kubelet.allocate(RESOURCE, &["0000:03:10.0"]).expect("a healthy VF");
    assert_eq!(plugin.complaints("Permission denied"), 1, "{}", plugin.program.errors());
    assert_eq!(plugin.end()?.code, 0);
    Ok(())
}

#[test]
fn a_directory_that_is_made_later_is_found() -> Result<()> {
    let host = Host::new();
    fs::remove_dir(host.plugins()).expect("an empty directory");
    let plugin = host.start(&[])?;
    plugin.complains("not served")?;
    fs::create_dir(host.plugins()).expect("a directory can be made");
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    Ok(())
}
