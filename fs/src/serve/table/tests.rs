use cairn_store::BlobRef;

use super::*;
use crate::serve::node::PathHash;

fn tree(number: u8) -> TreeId {
    TreeId::from_bytes([number; 32])
}

fn at(number: u8, entry: u32) -> Location {
    Location { directory: NodeId::ROOT, tree: tree(number), entry }
}

fn table() -> Table {
    Table::new(Position::Inside(PathHash::ROOT))
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn enter_file(table: &mut Table, location: Location, comparison: Comparison) -> NodeId {
    table.enter_file(HOME, location, |_| comparison).unwrap()
}

fn enter_directory(table: &mut Table, parent: NodeId, text: &str) -> NodeId {
    let name = name(text);
    table.enter_directory(NodeId::of_directory(parent, &name), parent, &name).unwrap()
}

const HOME: NodeId = NodeId::from_kernel(1000);

#[test]
fn a_node_is_known_until_it_was_forgotten_as_often_as_told() {
    let mut table = table();
    let enter_both = |table: &mut Table| {
        let file = enter_file(table, at(1, 7), Comparison::Different);
        (file, enter_directory(table, NodeId::ROOT, "usr"))
    };
    let (file, directory) = enter_both(&mut table);
    assert_eq!(enter_both(&mut table), (file, directory));
    assert_eq!(table.file(file), Some(at(1, 7)));
    assert_eq!(table.len(), 3);
    for id in [file, directory] {
        table.forget(id, 1);
        assert!(
            table.file(file).is_some() && table.directory(directory).is_some() || id == directory
        );
        table.forget(id, 1);
    }
    assert_eq!((table.file(file), table.len()), (None, 1));
    assert!(!table.has_files_of(NodeId::ROOT, tree(1)));
    table.forget(NodeId::ROOT, u64::MAX);
    table.forget(NodeId::from_kernel(4711), 3);
    assert!(table.directory(NodeId::ROOT).is_some());
}

#[test]
fn the_way_to_what_is_known_stays_known() {
    let mut table = table();
    let usr = enter_directory(&mut table, NodeId::ROOT, "usr");
    let lib = enter_directory(&mut table, usr, "lib");
    let file = enter_file(&mut table, Location { directory: lib, ..at(1, 7) }, Comparison::Same);
    for id in [usr, lib] {
        table.forget(id, 1);
        assert!(table.directory(usr).is_some() && table.directory(lib).is_some());
    }
    assert_eq!(table.known_directory(usr, &name("lib")), Some(lib));
    // Told of again, it is forgotten again without harm.
    assert_eq!(enter_directory(&mut table, usr, "lib"), lib);
    table.forget(lib, 1);
    assert!(table.directory(lib).is_some());
    table.forget(file, 1);
    assert_eq!(table.len(), 1);
    assert_eq!(table.enter_directory(HOME, usr, &name("lib")), None);
}

#[test]
fn files_whose_numbers_collide_get_different_ones_and_keep_them() {
    let mut table = table();
    let enter = |table: &mut Table, entry| enter_file(table, at(1, entry), Comparison::Different);
    let ids: Vec<NodeId> = (0..4).map(|entry| enter(&mut table, entry)).collect();
    assert_eq!(ids, [1000, 1001, 1002, 1003].map(NodeId::from_kernel));
    // The first number becomes free; the others are still found behind it.
    table.forget(ids[0], 1);
    for entry in 1..4 {
        assert_eq!(enter(&mut table, entry), ids[entry as usize]);
        assert_eq!(table.known_file(HOME, at(1, entry)), Some(ids[entry as usize]));
    }
    assert_eq!(table.known_file(HOME, at(1, 0)), None);
    assert_eq!(enter(&mut table, 0), ids[0]);
}

#[test]
fn a_directory_and_a_file_never_share_a_number() {
    let mut table = table();
    let usr = name("usr");
    let home = NodeId::of_directory(NodeId::ROOT, &usr);
    let file = table.enter_file(home, at(1, 0), |_| Comparison::Same).unwrap();
    let directory = table.enter_directory(home, NodeId::ROOT, &usr).unwrap();
    assert_ne!(file, directory);
    assert_eq!(table.known_directory(NodeId::ROOT, &usr), Some(directory));
}

#[test]
fn a_file_is_read_where_it_was_met_first_unless_that_is_lost() {
    for (comparison, place) in [(Comparison::Same, at(1, 0)), (Comparison::Unreadable, at(2, 5))] {
        let mut table = table();
        let id = enter_file(&mut table, at(1, 0), Comparison::Different);
        assert_eq!(enter_file(&mut table, at(2, 5), comparison), id);
        assert_eq!(table.file(id), Some(place));
        for number in [1, 2] {
            let has_files = table.has_files_of(NodeId::ROOT, tree(number));
            assert_eq!(has_files, place.tree == tree(number));
        }
    }
}

#[test]
fn what_a_directory_shows_is_asked_for_after_each_switch_and_once() {
    let mut table = table();
    table.show(tree(1), 1);
    let usr = enter_directory(&mut table, NodeId::ROOT, "usr");
    let lib = enter_directory(&mut table, usr, "lib");
    let steps = |table: &Table, switch| {
        let way = table.way_to(lib, switch).unwrap();
        (way.from, way.steps.into_iter().map(|(id, _)| id).collect::<Vec<_>>())
    };
    assert_eq!(steps(&table, 1), (Some(tree(1)), vec![usr, lib]));
    table.saw(usr, Some(tree(2)), 1);
    assert_eq!(steps(&table, 1), (Some(tree(2)), vec![lib]));
    table.saw(lib, Some(tree(3)), 1);
    assert_eq!(steps(&table, 1), (Some(tree(3)), vec![]));
    table.show(tree(4), 2);
    assert_eq!(steps(&table, 2), (Some(tree(4)), vec![usr, lib]));
    assert_eq!(table.directory(NodeId::ROOT).unwrap().earlier, [tree(1)]);
    table.saw(lib, None, 2);
    table.saw(lib, Some(tree(5)), 2);
    assert_eq!(table.directory(lib).unwrap().earlier, [tree(3)]);
}

#[test]
fn a_count_that_is_full_ends_only_by_asking() {
    let mut table = table();
    let id = enter_file(&mut table, at(1, 0), Comparison::Same);
    table.files.get_mut(id).unwrap().lookups = Lookups(Lookups::MAX - 1);
    for _ in 0..2 {
        enter_file(&mut table, at(1, 0), Comparison::Same);
    }
    table.forget(id, u64::from(Lookups::MAX) + 1);
    assert!(table.file(id).is_some());
    assert_eq!(table.begin_round(), []);
    assert_eq!(table.begin_round(), [Doubted::File(id)]);
    table.answered(id, false);
    assert_eq!(table.begin_round(), []);
    assert_eq!(table.file(id), None);
}

/// A table that was taken over with one file, of which its predecessor told
/// the kernel so often.
fn inherited(count: u32) -> (Table, NodeId) {
    let mut table = table();
    table.take_over(&Record::File { id: HOME, location: at(1, 0) }).unwrap();
    if count > 1 {
        table.take_over(&Record::Lookups { id: HOME, count }).unwrap();
    }
    let file = tempfile::tempfile().unwrap();
    table.go_on_in(Ledger::create(file, crate::serve::ledger::Said::default()).unwrap());
    (table, HOME)
}

#[test]
fn what_was_forgotten_before_a_look_up_does_not_use_up_that_look_up() {
    let (mut table, id) = inherited(2);
    // The kernel has forgotten it twice, and asked anew; it delivers the
    // question first.
    enter_file(&mut table, at(1, 0), Comparison::Same);
    table.forget(id, 2);
    assert!(table.file(id).is_some());
    table.forget(id, 1);
    assert_eq!(table.file(id), None);
}

#[test]
fn the_kernel_is_asked_only_for_what_it_was_not_told_of_for_a_round() {
    let (mut table, id) = inherited(1);
    let asked = table.begin_round();
    assert_eq!(asked, [Doubted::File(id)]);
    // Told of it while it is asked.
    enter_file(&mut table, at(1, 0), Comparison::Same);
    table.answered(id, false);
    assert_eq!(table.begin_round(), []);
    assert!(table.file(id).is_some());
    table.forget(id, 1);
    assert_eq!(table.begin_round(), []);
    let asked = table.begin_round();
    assert_eq!(asked, [Doubted::File(id)]);
    table.answered(id, true);
    assert_eq!((table.begin_round(), table.begin_round()), (vec![], vec![]));
    assert!(table.file(id).is_some());
    table.forget(id, 1);
    assert_eq!(table.file(id), None);
}

#[test]
fn a_file_takes_20_bytes_and_a_directory_not_much_more_than_its_name() {
    assert_eq!(size_of::<(NodeId, File)>(), 20);
    assert_eq!(size_of::<(NodeId, Known)>(), 56);
}

#[test]
fn memory_comes_back_when_the_kernel_has_forgotten() {
    let mut table = table();
    let ids: Vec<NodeId> = (0..100_000_u32)
        .map(|i| {
            let home = NodeId::from_kernel(2 + u64::from(i) * 0x12_3456_789a);
            table.enter_file(home, at(1, i), |_| Comparison::Different).unwrap()
        })
        .collect();
    assert!(table.files.capacity() >= 100_000);
    ids.iter().for_each(|id| table.forget(*id, 1));
    table.shrink();
    assert!(table.files.capacity() < 100, "{}", table.files.capacity());
}

fn blob(number: u8) -> BlobRef {
    BlobRef::of(&[number])
}

fn node(number: u64) -> NodeId {
    NodeId::from_kernel(number)
}

#[test]
fn all_opens_of_a_file_at_a_time_are_read_from_the_same() {
    let mut table = table();
    assert_eq!(table.open(node(2), &blob(1)), None);
    assert_eq!(table.open_asked(node(2), &blob(1)), Reading::Asked);
    // It has got one meanwhile, for others to be read through.
    table.back(7, blob(1));
    assert_eq!(table.open(node(2), &blob(1)), Some(Reading::Asked));
    assert_eq!(table.open(node(3), &blob(1)), Some(Reading::Passed(7)));
    table.close(node(2));
    assert_eq!(table.open(node(2), &blob(1)), Some(Reading::Asked));
    table.close(node(2));
    table.close(node(2));
    assert_eq!(table.open_asked(node(2), &blob(1)), Reading::Passed(7));
    assert_eq!(table.opens(), (2, 1));
    // Closed more often than opened, which nobody does.
    table.close(node(2));
    table.close(node(2));
    assert_eq!(table.opens(), (1, 1));
}

#[test]
fn backing_ids_are_let_go_the_oldest_first_and_none_that_is_open() {
    let mut table = table();
    for id in 1..=9 {
        table.back(id, blob(u8::try_from(id).unwrap()));
        table.open(node(100 + u64::from(id)), &blob(u8::try_from(id).unwrap()));
    }
    assert_eq!(table.drop_surplus(), None);
    assert_eq!(table.unused_backings(), []);
    assert_eq!(table.drop_unused(3), None);
    // The kernel forgets one that was not closed as far as is known.
    enter_file(&mut table, at(1, 0), Comparison::Same);
    assert_eq!(table.open(HOME, &blob(5)), Some(Reading::Passed(5)));
    for id in [5, 2, 8, 4, 1, 9] {
        table.close(node(100 + id));
    }
    assert_eq!(table.unused_backings().len(), 5);
    assert_eq!((table.drop_surplus(), table.drop_surplus()), (Some(2), None));
    table.forget(HOME, 1);
    assert_eq!((table.drop_surplus(), table.drop_surplus()), (Some(8), None));
    // One that is opened again is none of the oldest.
    assert_eq!(table.open(node(104), &blob(4)), Some(Reading::Passed(4)));
    table.close(node(104));
    table.back(10, blob(10));
    assert_eq!(table.drop_surplus(), Some(1));
    assert_eq!(table.open(node(101), &blob(1)), None);
    let ids: Vec<u32> = table.unused_backings().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [9, 5, 4, 10]);
    assert_eq!((table.drop_unused(4), table.drop_unused(4)), (Some(4), None));
    assert_eq!(table.opens().1, 9 + 1 - 4);
}

/// What a table has noted of opens, in an order of its own.
fn described(table: &Table) -> Vec<String> {
    let mut records = Vec::new();
    table.opens.describe(&mut |record| records.push(format!("{record:?}")));
    records.sort();
    records
}

#[test]
fn a_successor_knows_what_is_open_and_through_what_it_is_read() {
    let file = tempfile::tempfile().unwrap();
    let mut table = table();
    let said = crate::serve::ledger::Said { told: b"{}".into(), ..Default::default() };
    let ledger = Ledger::create(file.try_clone().unwrap(), said).unwrap();
    table.keep_in(ledger).unwrap();
    let (mut random, mut next) = (0x9e37_79b9_u64, 1);
    let mut seen = std::collections::HashSet::new();
    for step in 0..3000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = u8::try_from(random % 12).unwrap();
        let (id, blob) = (node(1000 + u64::from(number)), blob(number / 2));
        match random >> 32 & 7 {
            0..3 => {
                if table.open(id, &blob).is_none() && random >> 40 & 3 > 0 {
                    table.back(next, blob);
                    next += 1;
                    table.open(id, &blob).unwrap();
                } else {
                    table.open_asked(id, &blob);
                }
            }
            3..6 => table.close(id),
            6 => drop(table.drop_surplus()),
            _ => {
                let location = at(1, u32::from(number));
                table.enter_file(id, location, |_| Comparison::Different).unwrap();
                table.forget(id, 1);
            }
        }
        table.keep().unwrap();
        let mut successor = super::tests::table();
        Ledger::open(file.try_clone().unwrap(), |record| successor.take_over(&record)).unwrap();
        assert_eq!(described(&successor), described(&table), "step {step}");
        seen.insert(table.opens());
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn a_directory_keeps_its_name_however_long_that_is() {
    let mut table = table();
    for len in [1, 13, 14, 15, 16, 255] {
        let name = Name::new(&vec![b'n'; len]).unwrap();
        let home = NodeId::of_directory(NodeId::ROOT, &name);
        let id = table.enter_directory(home, NodeId::ROOT, &name).unwrap();
        assert_eq!(table.directory(id).unwrap().name.as_ref(), Some(&name));
        assert_eq!(table.known_directory(NodeId::ROOT, &name), Some(id));
        let other = Name::new(&vec![b'n'; len - 1]).ok();
        assert!(other.is_none_or(|other| table.known_directory(NodeId::ROOT, &other) != Some(id)));
    }
}
