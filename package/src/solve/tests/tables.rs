//! What the rules come to, case by case.

use super::world::{World, request, written};

#[track_caller]
fn check(world: &World, asked: &str, expected: &[&str]) {
    let solution =
        world.solve(&request(asked)).unwrap_or_else(|problem| panic!("{asked}: {problem}"));
    assert_eq!(written(&solution), expected, "{asked}");
}

#[track_caller]
fn fails(world: &World, asked: &str, expected: &str) {
    let problem = world.solve(&request(asked)).map(|it| written(&it)).expect_err(asked);
    assert_eq!(problem.to_string(), expected, "{asked}");
}

#[test]
fn an_install_brings_what_is_needed_and_nothing_else() {
    let world = World::new(
        "*base:1",
        "base:2
         nano:1 needs base ncurses soname(libc.so)
         ncurses:1 needs terminfo offers soname(libncurses.so)
         terminfo:1
         libc:1 offers soname(libc.so)
         vim:1",
    );
    check(
        &world,
        "nano",
        &["+ libc:1 for nano", "+ nano:1", "+ ncurses:1 for nano", "+ terminfo:1 for ncurses"],
    );
    check(&world, "soname(libc.so) base", &["+ libc:1"]);
    check(&world, "", &[]);
}

#[test]
fn asking_for_what_is_there_marks_it() {
    let world = World::new("*a:1 needs b \n b:1 offers binary(b)", "b:2 offers binary(b)");
    check(&world, "b", &["* b:1"]);
    check(&world, "binary(b)", &["* b:1"]);
    check(&world, "a", &[]);
}

#[test]
fn the_best_provider_is_taken() {
    let one = |packages: &str| World::new("", packages);
    // The one that has the name.
    check(&one("mta:1 \n a:9 offers mta"), "mta", &["+ mta:1"]);
    check(&one("x:1 needs mta \n mta:1 \n a:9 offers mta"), "x", &["+ mta:1 for x", "+ x:1"]);
    check(
        &one("nano:1 offers binary(nano) \n ed:1 offers binary(nano)"),
        "binary(nano)",
        &["+ nano:1"],
    );
    // The larger priority, also if it is older or has a longer name.
    let two = one("exim:9 offers mta").and("more", 5, "postfix:1 offers mta");
    check(&two, "mta", &["+ postfix:1"]);
    let two = one("exim:9").and("more", 5, "exim:1");
    check(&two, "exim", &["+ exim:1"]);
    // The newer one, among equals.
    check(&one("exim:2").and("more", 0, "exim:3"), "exim", &["+ exim:3"]);
    // The shorter name, then the first one.
    check(&one("exima:1 offers mta \n exim:1 offers mta"), "mta", &["+ exim:1"]);
    check(&one("eximb:1 offers mta \n exima:1 offers mta"), "mta", &["+ exima:1"]);
    // What is there, whatever it is.
    let there = World::new("*sendmail:1 offers mta", "x:1 needs mta \n mta:1");
    check(&there, "x", &["+ x:1"]);
    // What comes anyway.
    let both = one("x:1 needs mta \n y:1 needs exim \n exim:1 offers mta \n a:1 offers mta");
    check(&both, "x y", &["+ exim:1 for x", "+ x:1", "+ y:1"]);
}

#[test]
fn a_name_means_the_package_of_that_name() {
    let world = World::new("", "mta:1 needs nothing \n exim:1 offers mta");
    fails(&world, "mta", "mta needs nothing, which nothing provides");
}

#[test]
fn files_come_before_everything_else() {
    let world = World::new("*a:2", "a:3 \n b:9 offers binary(a)").files("a:1 offers binary(a)");
    check(&world, "a", &["a:2 down a:1"]);
    check(&world, "binary(a)", &["a:2 down a:1"]);
    // The same package again is no change.
    check(&World::new("a:2", "a:3").files("a:2"), "a", &["* a:2"]);
}

#[test]
fn an_install_leaves_what_is_there_alone() {
    // A provider that needs no change is taken before a better one.
    let world = World::new("*c:1", "a:1 needs x \n x:1 against c \n y:1 offers x");
    check(&world, "a", &["+ a:1", "+ y:1 for a"]);
    // What nobody needed before stays.
    check(&World::new("orphan:1", "a:1"), "a", &["+ a:1"]);
}

#[test]
fn an_install_replaces_what_it_must_and_what_comes_with_that() {
    let world = World::new(
        "*tool:1 needs soname(x.1)
         libx:1 offers soname(x.1)
         *other:1",
        "app:1 needs soname(x.2)
         tool:2 needs soname(x.2)
         libx:2 offers soname(x.2)
         other:2",
    );
    check(&world, "app", &["+ app:1", "libx:1 up libx:2", "tool:1 up tool:2"]);
}

#[test]
fn what_nobody_asked_for_makes_way() {
    let world = World::new(
        "*app:1 needs mta \n exim:1 offers mta needs db \n db:1",
        "postfix:1 offers mta against exim",
    );
    check(&world, "postfix", &["+ postfix:1", "- db:1 unneeded", "- exim:1 against postfix"]);
    let asked = World::new("*exim:1 offers mta", "postfix:1 offers mta against exim");
    fails(&asked, "postfix", "postfix conflicts with exim, which is installed");
    check(&asked, "postfix -exim", &["+ postfix:1", "- exim:1 asked"]);
}

#[test]
fn conflicts_hold_both_ways_and_never_with_oneself() {
    let check_pair = |one: &str, other: &str| {
        let world = World::new(&format!("*{one}"), other);
        assert!(world.solve(&request("b")).is_err(), "{one} {other}");
        assert!(World::new("", &format!("{one}\n{other}")).solve(&request("a b")).is_err());
    };
    check_pair("a:1 against b", "b:1");
    check_pair("a:1", "b:1 against a");
    check_pair("a:1 offers mta against mta", "b:1 offers mta");
    check_pair("a:1 offers mta", "b:1 offers mta against mta");
    let alone = World::new("", "a:1 offers mta against mta a");
    check(&alone, "a", &["+ a:1"]);
}

#[test]
fn a_removal_takes_dependants_and_what_becomes_unneeded() {
    let world = World::new(
        "*app:1 needs lib
         *plugin:1 needs app
         *other:1 needs tool
         lib:1 needs data tool
         data:1
         tool:1
         orphan:1",
        "lib:2",
    );
    check(
        &world,
        "-app",
        &["- app:1 asked", "- data:1 unneeded", "- lib:1 unneeded", "- plugin:1 needs app"],
    );
    check(
        &world,
        "-data",
        &["- app:1 needs lib", "- data:1 asked", "- lib:1 needs data", "- plugin:1 needs app"],
    );
    check(&world, "-orphan", &["- orphan:1 asked"]);
    check(&world, "-other -plugin", &["- other:1 asked", "- plugin:1 asked"]);
}

#[test]
fn a_removal_brings_nothing_new() {
    let world = World::new("*app:1 needs mta \n exim:1 offers mta", "postfix:1 offers mta");
    check(&world, "-exim", &["- app:1 needs mta", "- exim:1 asked"]);
    // With another provider there, the dependant stays.
    let world = World::new("*app:1 needs mta \n exim:1 offers mta \n *dma:1 offers mta", "");
    check(&world, "-exim", &["- exim:1 asked"]);
    // Asking for another one in the same request keeps it as well.
    let world = World::new("*app:1 needs mta \n exim:1 offers mta", "postfix:1 offers mta");
    check(&world, "-exim postfix", &["+ postfix:1", "- exim:1 asked"]);
}

#[test]
fn what_is_not_a_name_is_removed_wherever_it_is() {
    let world = World::new("*a:1 offers binary(x) \n *b:1 offers binary(x) \n *c:1", "");
    check(&world, "-binary(x)", &["- a:1 asked", "- b:1 asked"]);
}

#[test]
fn an_upgrade_follows_the_repository_of_the_largest_priority() {
    let world = World::new("*a:5 \n *b:1 \n *c:1 \n *d:1", "a:4 \n b:2 \n c:1").and(
        "more",
        3,
        "b:1 offers x",
    );
    check(&world, "^", &["a:5 down a:4", "b:1 to b:1"]);
    check(&world, "^a", &["a:5 down a:4"]);
    check(&World::new("*a:1 \n *b:1", "a:2 \n b:2"), "^b", &["b:1 up b:2"]);
    // The best one is there already, so that the others do not count.
    let world = World::new("*a:1", "a:2").and("more", 3, "a:1");
    check(&world, "^", &[]);
}

#[test]
fn a_downgrade_goes_to_the_next_older_build_and_takes_along_what_it_must() {
    let world = World::new("*a:5 needs lib \n lib:5", "a:3").and("more", 3, "a:2 \n a:6");
    check(&world, "_a", &["a:5 down a:3", "- lib:5 unneeded"]);
    check(&world, "_a=2", &["a:5 down a:2", "- lib:5 unneeded"]);
    check(&world, "_a=2-2", &["a:5 down a:2", "- lib:5 unneeded"]);
    let problem = world.solve(&request("_a=6")).expect_err("it is newer");
    assert_eq!(problem.to_string(), "no repository has 6 as an older build than a 5-5");
    let world =
        World::new("*a:5 needs x.5 \n lib:5 offers x.5", "a:3 needs x.3 \n lib:3 offers x.3");
    check(&world, "_a", &["a:5 down a:3", "lib:5 down lib:3"]);
    check(&world, "_lib", &["a:5 down a:3", "lib:5 down lib:3"]);
    // It stays also when nobody needs it any more.
    let world = World::new("*a:1 needs z \n lib:5 offers z", "a:1 \n lib:3");
    check(&world, "_lib", &["a:1 to a:1", "lib:5 down lib:3"]);
    // What somebody asked for is not taken away for it.
    let world = World::new("*a:5 needs x.5 \n lib:5 offers x.5", "lib:3 offers x.3");
    let problem = world.solve(&request("_lib")).expect_err("a needs the newer one");
    assert!(problem.to_string().contains("needs x.5"), "{problem}");
    let problem = World::new("*a:5", "a:5").solve(&request("_a")).expect_err("it is the oldest");
    assert_eq!(problem.to_string(), "no repository has an older build than a 5-5");
    let problem = World::new("*a:5", "").solve(&request("_b")).expect_err("it is not there");
    assert_eq!(problem.to_string(), "b is not installed; similar names are a");
}

#[test]
fn an_upgrade_that_is_impossible_is_held_back_and_the_rest_goes_on() {
    let world = World::new("*a:1 \n *b:1 needs a", "a:2 needs gone \n b:2");
    check(&world, "^", &["b:1 up b:2", "= a:1: a 2-2 needs gone, which nothing provides"]);
    let world = World::new("*a:1 \n *b:1", "a:2 against b");
    check(&world, "^", &["= a:1: a 2-2 conflicts with b, which is installed"]);
    let world = World::new("*a:1 offers x.1 \n *b:1 needs x.1", "a:2 offers x.2");
    check(&world, "^", &["= a:1: a 2-2 cannot take the place of a 1-1, which b needs"]);
    // Even an explicit request leaves alone what would break others.
    check(&world, "^a", &["= a:1: a 2-2 cannot take the place of a 1-1, which b needs"]);
}

#[test]
fn an_upgrade_drops_what_becomes_unneeded() {
    let world = World::new(
        "*a:1 needs libx1 \n libx1:1",
        "a:2 needs libx2 \n libx2:1 against libx1 \n libx1:2",
    );
    check(&world, "^", &["+ libx2:1 for a", "a:1 up a:2", "- libx1:1 against libx2"]);
    let world = World::new("*a:1 needs libx1 \n libx1:1", "a:2 needs libx2 \n libx2:1 \n libx1:2");
    check(&world, "^", &["+ libx2:1 for a", "a:1 up a:2", "- libx1:1 unneeded"]);
    // Also for the sake of what is itself only needed.
    let world = World::new(
        "*app:1 needs a \n a:1 needs libx1 \n libx1:1",
        "a:2 needs libx2 \n libx2:1 against libx1 \n libx1:2",
    );
    check(&world, "^", &["+ libx2:1 for a", "a:1 up a:2", "- libx1:1 against libx2"]);
    let world = World::new("*a:1 \n *b:1", "a:2 against c \n b:2 needs c \n c:1");
    check(
        &world,
        "^",
        &["+ c:1 for b", "b:1 up b:2", "= a:1: a 2-2 conflicts with c, which b needs"],
    );
    let world = World::new("*a:1 \n *b:1", "a:2 against b2 \n b:2 offers b2");
    check(&world, "^", &["b:1 up b:2", "= a:1: a 2-2 conflicts with b 2-2, which is an upgrade"]);
}

#[test]
fn what_is_broken_already_is_mended() {
    let world = World::new("*a:1 needs b", "b:1 \n c:1");
    check(&world, "c", &["+ b:1 for a", "+ c:1"]);
    let world = World::new("*a:1 needs b", "c:1");
    fails(&world, "c", "a needs b, which nothing provides");
}

#[test]
fn what_does_not_exist_is_told_with_what_could_be_meant() {
    let world = World::new("*vim:1", "nano:1 offers binary(pico) \n nanorc:1");
    fails(&world, "nanp", "nothing provides nanp; similar names are nano");
    fails(&world, "pico", "nothing provides pico; something of this name is provided by nano");
    fails(&world, "qqq -vim zzzz", "nothing provides qqq\nnothing provides zzzz");
    fails(&world, "-nano -vi", "nano is not installed\nvi is not installed; similar names are vim");
    fails(&world, "^nano", "nano is not installed");
}

#[test]
fn contradictions_are_told() {
    let world = World::new("*a:1", "a:2 \n b:1 needs a");
    fails(&world, "a -a", "a cannot be removed and asked for at once");
    fails(&world, "^a -a", "a cannot be removed and asked for at once");
    fails(&world, "b -a", "b needs a, which nothing provides but a, to be removed");
}

#[test]
fn chains_lead_to_what_is_in_the_way() {
    let world = |packages: &str| World::new("*c:1", packages);
    fails(
        &world("a:1 needs b \n b:1 against c"),
        "a",
        "a needs b, but b conflicts with c, which is installed",
    );
    fails(
        &world("a:1 needs b \n b:1 needs soname(x.so)"),
        "a",
        "a needs b, and b needs soname(x.so), which nothing provides",
    );
    fails(
        &world("a:1 needs mta \n exim:1 offers mta against c"),
        "a",
        "a needs mta, which only exim provides, but exim conflicts with c, which is installed",
    );
    fails(
        &world("a:1 needs mta \n exim:1 offers mta against c \n dma:1 offers mta needs x"),
        "a",
        "a needs mta, which could come from these:\
         \n  - dma needs x, which nothing provides\
         \n  - exim conflicts with c, which is installed",
    );
    fails(
        &world("a:1 needs x \n b:1 needs y"),
        "a b",
        "a needs x, which nothing provides\nb needs y, which nothing provides",
    );
    fails(&world("a:1 against b \n b:1"), "a b", "a conflicts with b, which is asked for too");
    fails(
        &world("a:1 needs x \n x:1 against y \n b:1 needs y \n y:1"),
        "a b",
        "a needs x, but x conflicts with y, which b needs",
    );
    fails(
        &World::new("*tool:1 needs x.1 \n lib:1 offers x.1", "a:1 needs x.2 \n lib:2 offers x.2"),
        "a",
        "a needs x.2, which only lib 2-2 provides, but lib 2-2 cannot take the place of lib 1-1, which tool needs",
    );
    fails(
        &world("a:1 needs x \n x:1 needs a2 \n a2:1 needs x against a"),
        "a",
        "a needs x, and x needs a2, but a2 conflicts with a, which is asked for too",
    );
}
