use super::*;
use std::collections::HashMap;

/// A system ROM that passes for one.
fn bios() -> Vec<u8> {
    let mut rom = vec![0; 128 * 1024];
    let vector = rom.len() - RESET_VECTOR_BYTES;
    rom[vector] = 0xEA;
    rom
}

fn vga_rom() -> Vec<u8> {
    let mut rom = vec![0; 1024];
    rom[..3].copy_from_slice(&[0x55, 0xAA, 2]);
    rom
}

/// A `.deb` with the given files.
fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar.into_inner().unwrap()).unwrap();
    let data = gz.finish().unwrap();
    let mut archive = ar::Builder::new(Vec::new());
    for (name, content) in [("debian-binary", b"2.0\n".as_slice()), ("data.tar.gz", &data)] {
        archive.append(&ar::Header::new(name.as_bytes().to_vec(), content.len() as u64), content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A search that sees nothing but `folder`.
fn search(folder: &Path) -> Search {
    Search {
        chosen: None,
        system: vec![folder.join("system")],
        cache: Some(folder.join("cache")),
        offline: true,
        packages: None,
    }
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn firmware_of_the_system_is_found() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("system/bios-256k.bin"), &bios());
    put(&folder.path().join("system/vgabios-stdvga.bin"), &vga_rom());

    let found = find_or_fetch_in(&search(folder.path()), &ProgressBar::hidden()).unwrap();

    assert_eq!(found.bios, folder.path().join("system/bios-256k.bin"));
    assert_eq!(found.vga_rom, folder.path().join("system/vgabios-stdvga.bin"));
}

#[test]
fn files_that_are_no_roms_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("system/bios-256k.bin"), &[0; 64 * 1024]);
    put(&folder.path().join("system/bios.bin"), &bios());
    put(&folder.path().join("system/vgabios-stdvga.bin"), b"no ROM");
    put(&folder.path().join("system/vgabios.bin"), &vga_rom());

    let found = find(&search(folder.path())).unwrap().unwrap();

    assert_eq!(found.bios, folder.path().join("system/bios.bin"));
    assert_eq!(found.vga_rom, folder.path().join("system/vgabios.bin"));
}

#[test]
fn chosen_file_wins_and_a_wrong_one_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("system/bios-256k.bin"), &bios());
    put(&folder.path().join("system/vgabios-stdvga.bin"), &vga_rom());
    put(&folder.path().join("mine.bin"), &bios());
    put(&folder.path().join("short.bin"), b"short");

    let mine = Search { chosen: Some(folder.path().join("mine.bin")), ..search(folder.path()) };
    let short = Search { chosen: Some(folder.path().join("short.bin")), ..search(folder.path()) };

    assert_eq!(find(&mine).unwrap().unwrap().bios, folder.path().join("mine.bin"));
    let error = find(&short).unwrap_err().to_string();
    assert!(error.contains("short.bin") && error.contains("5 bytes"), "{error}");
}

#[test]
fn package_fills_the_cache_once() {
    let folder = tempfile::tempdir().unwrap();
    let deb = package(&[
        ("./usr/share/seabios/bios-256k.bin", &bios()),
        ("./usr/share/seabios/vgabios-stdvga.bin", &vga_rom()),
    ]);
    let packages = folder.path().join("packages");
    put(&packages.join("seabios_1_all.deb"), &deb);
    let search = Search { packages: Some(packages.clone()), ..search(folder.path()) };

    let first = find_or_fetch_in(&search, &ProgressBar::hidden()).unwrap();
    fs::remove_dir_all(packages).unwrap();
    let second = find_or_fetch_in(&search, &ProgressBar::hidden()).unwrap();

    assert_eq!(fs::read(&first.bios).unwrap(), bios());
    assert_eq!((first.bios, first.vga_rom), (second.bios, second.vga_rom));
}

#[test]
fn package_cannot_write_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
    header.set_cksum();
    tar.append(&header, b"x".as_slice()).unwrap();
    let data = tar.into_inner().unwrap();
    let mut archive = ar::Builder::new(Vec::new());
    archive.append(&ar::Header::new(b"data.tar".to_vec(), data.len() as u64), data.as_slice()).unwrap();
    put(&folder.path().join("evil.deb"), &archive.into_inner().unwrap());
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();

    let _ = deb::unpack(&folder.path().join("evil.deb"), &into, &|_| true);

    assert!(!folder.path().join("escape").exists());
}

#[test]
fn damaged_and_empty_packages_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let packages = folder.path().join("packages");
    let search = Search { packages: Some(packages.clone()), ..search(folder.path()) };

    put(&packages.join("seabios_1_all.deb"), b"!<arch>\nrubbish");
    let damaged = find_or_fetch_in(&search, &ProgressBar::hidden()).unwrap_err();
    put(&packages.join("seabios_1_all.deb"), &package(&[("./usr/share/doc/readme", b"x")]));
    let empty = find_or_fetch_in(&search, &ProgressBar::hidden()).unwrap_err();

    assert!(matches!(damaged, FirmwareError::Damaged { .. }), "{damaged}");
    assert!(matches!(empty, FirmwareError::NotInPackage { .. }), "{empty}");
}

#[test]
fn offline_search_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = find_or_fetch_in(&search(folder.path()), &ProgressBar::hidden()).unwrap_err().to_string();
    assert!(error.contains("--firmware FILE"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn cache_folder_follows_the_environment() {
    let cache = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Search::from_variables(|name| variables.get(name).map(OsString::from)).cache
    };
    assert_eq!(cache(&[("HOME", "/h")]), Some(PathBuf::from("/h/.cache/vmsim")));
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some(PathBuf::from("/c/vmsim")));
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]), Some(PathBuf::from("/h/.cache/vmsim")));
    assert_eq!(cache(&[]), None);
}
