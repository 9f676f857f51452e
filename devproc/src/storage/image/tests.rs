use super::*;
use ipc::machine::Geometry;
use std::fs;

#[test]
fn a_write_is_in_the_file_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    fs::write(&path, [0; 1024]).unwrap();
    let mut image = RawFile::open(&path, false).unwrap();

    image.write_at(512, b"hello").unwrap();

    assert_eq!(&fs::read(&path).unwrap()[512..517], b"hello");
    let mut back = [0; 5];
    image.read_at(512, &mut back).unwrap();
    assert_eq!(&back, b"hello");
    image.flush().unwrap();
}

#[test]
fn opening_says_what_is_wrong_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.img");
    let error = RawFile::open(&missing, true).unwrap_err();
    assert!(matches!(error, ImageError::Missing { .. }));
    assert!(error.to_string().contains("missing.img"));
    assert!(matches!(RawFile::open(dir.path(), true), Err(ImageError::NotAFile { .. })));
    assert!(matches!(RawFile::open("/dev/null".as_ref(), true), Err(ImageError::NotAFile { .. })));
}

#[test]
fn a_read_only_image_refuses_writes_and_ranges_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    fs::write(&path, [7; 512]).unwrap();
    let mut image = RawFile::open(&path, true).unwrap();
    assert!(image.read_only());
    assert_eq!(image.write_at(0, &[1]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(image.read_at(511, &mut [0; 2]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(image.read_at(u64::MAX, &mut [0; 2]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fs::read(&path).unwrap(), [7; 512]);
}

#[test]
fn diskettes_are_known_by_their_size() {
    let kib = |k: u64| FloppyFormat::of_image(k * 1024, None).map(|f| (f.cylinders, f.heads, f.sectors));
    assert_eq!(kib(160), Ok((40, 1, 8)));
    assert_eq!(kib(180), Ok((40, 1, 9)));
    assert_eq!(kib(320), Ok((40, 2, 8)));
    assert_eq!(kib(360), Ok((40, 2, 9)));
    assert_eq!(kib(720), Ok((80, 2, 9)));
    assert_eq!(kib(1200), Ok((80, 2, 15)));
    assert_eq!(kib(1440), Ok((80, 2, 18)));
    assert_eq!(kib(2880), Ok((80, 2, 36)));
    let xdf = FloppyFormat::of_image(1_884_160, None).unwrap_err().to_string();
    assert!(xdf.contains("1884160") && xdf.contains("1474560 (1440 KiB)"), "{xdf}");
}

#[test]
fn a_diskette_geometry_may_be_given_but_must_fit() {
    let dmf = Geometry { cylinders: 80, heads: 2, sectors: 21 };
    let format = FloppyFormat::of_image(80 * 2 * 21 * 512, Some(dmf)).unwrap();
    assert_eq!((format.sectors, format.rate), (21, DataRate::Kbps500));
    assert!(FloppyFormat::of_image(1_474_560, Some(dmf)).is_err());
    let flat = Geometry { cylinders: 2880, heads: 1, sectors: 1 };
    assert!(FloppyFormat::of_image(1_474_560, Some(flat)).is_err());
}

#[test]
fn disks_have_16_heads_and_63_sectors_unless_their_partitions_say_otherwise() {
    let mut blank = MemoryImage::new(vec![0; 16 * 63 * 10 * 512]);
    assert_eq!(disk_geometry(&mut blank, None), Ok(Geometry { cylinders: 10, heads: 16, sectors: 63 }));

    let mut bytes = vec![0; 4 * 17 * 20 * 512];
    bytes[446..462].copy_from_slice(&[0x80, 1, 1, 0, 0x01, 3, 17, 19, 17, 0, 0, 0, 0x3f, 5, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut old = MemoryImage::new(bytes.clone());
    assert_eq!(disk_geometry(&mut old, None), Ok(Geometry { cylinders: 20, heads: 4, sectors: 17 }));

    bytes[446 + 5] = 254;
    let mut translated = MemoryImage::new(bytes);
    assert_eq!(disk_geometry(&mut translated, None).unwrap().heads, 16);
}

#[test]
fn disks_must_be_whole_sectors_and_hold_the_geometry_asked_for() {
    let mut odd = MemoryImage::new(vec![0; 1000]);
    assert_eq!(disk_geometry(&mut odd, None), Err(GeometryError::DiskSize { len: 1000 }));
    assert!(disk_geometry(&mut MemoryImage::new(Vec::new()), None).is_err());
    let mut small = MemoryImage::new(vec![0; 512 * 100]);
    let big = Geometry { cylinders: 10, heads: 4, sectors: 17 };
    assert!(disk_geometry(&mut small, Some(big)).is_err());
    let fits = Geometry { cylinders: 2, heads: 2, sectors: 25 };
    assert_eq!(disk_geometry(&mut small, Some(fits)), Ok(fits));
}
