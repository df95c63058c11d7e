//! The bound on what a program may do: every call of a filter, and every value that a generator gives, is a step.
//!
//! The interpreter has no such bound of its own, so programs are rewritten before they are compiled, the definitions that come with
//! jq included: a native filter stands before every call, behind whatever gives several values, and in every `catch`, where it lets
//! nothing catch that there are no steps left. Whatever does not end takes a call or a generated value each time around. The
//! interpreter recurses where a program does, so each step also looks at how much of the stack is in use: one that ran over would
//! take the whole VM with it.

use std::cell::Cell;

use jaq_core::box_iter::box_once;
use jaq_core::data::JustLut;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::native::Fun;
use jaq_core::path::{Opt, Part, Path};
use jaq_core::{Error, Exn, Native};
use jaq_json::Val;

/// What a program works on.
pub(crate) type Data = JustLut<Val>;

thread_local! {
    /// How many steps are left; nothing once there were too few.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Where the stack was when the program began.
    static BEGAN: Cell<usize> = const { Cell::new(0) };
}

/// How much of the stack a program may use, in bytes. Builds for tests use far more of it for the same.
const MOST_STACK: usize = if cfg!(target_family = "wasm") { 64 << 10 } else { 1 << 20 };

/// Names that no program can write.
const STEP: &str = "!step";
const CAUGHT: &str = "!caught";

/// From here on so many steps may be taken.
pub(crate) fn allow(steps: u64) {
    LEFT.set(Some(steps));
    BEGAN.set(stack());
}

/// Where the stack is.
fn stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

/// Whether there were too few.
pub(crate) fn are_used_up() -> bool {
    LEFT.get().is_none()
}

fn step<'a>() -> Result<(), Exn<'a, Val>> {
    let fits = BEGAN.get().abs_diff(stack()) < MOST_STACK;
    LEFT.set(LEFT.get().filter(|_| fits).and_then(|left| left.checked_sub(1)));
    caught()
}

fn caught<'a>() -> Result<(), Exn<'a, Val>> {
    if are_used_up() { Err(Exn::from(Error::str("it takes too many steps, or recurses too deeply"))) } else { Ok(()) }
}

/// The filters that rewritten programs call.
pub(crate) fn natives() -> [Fun<Data>; 2] {
    let counts = Native::new(|cv| box_once(step().map(|()| cv.1)))
        .with_paths(|cv| box_once(step().map(|()| cv.1)))
        .with_update(|cv, update| match step() {
            Ok(()) => update(cv.1),
            Err(why) => box_once(Err(why)),
        });
    let rethrows = Native::new(|cv| box_once(caught().map(|()| cv.1)));
    [(STEP, Box::new([]), counts), (CAUGHT, Box::new([]), rethrows)]
}

/// A definition whose body counts.
pub(crate) fn definition(def: Def<&str>) -> Def<&str> {
    Def { body: term(def.body), ..def }
}

/// The same, and counts.
pub(crate) fn term<'s>(of: Term<&'s str>) -> Term<&'s str> {
    let boxed = |inner: Box<Term<&'s str>>| Box::new(term(*inner));
    match of {
        Term::Id | Term::Num(_) | Term::Break(_) | Term::Var(_) => of,
        Term::Recurse => counted(of),
        Term::Str(format, parts) => {
            let part = |part| match part {
                StrPart::Term(inner) => StrPart::Term(term(inner)),
                StrPart::Str(_) | StrPart::Char(_) => part,
            };
            Term::Str(format, parts.into_iter().map(part).collect())
        }
        Term::Arr(items) => Term::Arr(items.map(boxed)),
        Term::Obj(fields) => Term::Obj(fields.into_iter().map(|(name, value)| (term(name), value.map(term))).collect()),
        Term::Neg(inner) => Term::Neg(boxed(inner)),
        Term::BinOp(left, op, right) => Term::BinOp(boxed(left), operator(op), boxed(right)),
        Term::Label(name, inner) => Term::Label(name, boxed(inner)),
        Term::Fold(name, of, each, args) => {
            Term::Fold(name, boxed(of), pattern(each), args.into_iter().map(term).collect())
        }
        Term::TryCatch(inner, catch) => {
            let catch = catch.map_or_else(|| Term::Call("!empty", Vec::new()), |catch| term(*catch));
            Term::TryCatch(boxed(inner), Some(Box::new(piped(Term::Call(CAUGHT, Vec::new()), catch))))
        }
        Term::IfThenElse(cases, otherwise) => {
            let cases = cases.into_iter().map(|(condition, then)| (term(condition), term(then))).collect();
            Term::IfThenElse(cases, otherwise.map(boxed))
        }
        Term::Def(defs, inner) => Term::Def(defs.into_iter().map(definition).collect(), boxed(inner)),
        Term::Call(name, args) => {
            // The one native filter that gives more values than went in.
            let generates = name == "range";
            let call = piped(counter(), Term::Call(name, args.into_iter().map(term).collect()));
            if generates { counted(call) } else { call }
        }
        Term::Path(inner, path) => {
            let (path, generates) = places(path);
            let path = Term::Path(boxed(inner), path);
            if generates { counted(path) } else { path }
        }
    }
}

fn operator(op: BinaryOp<&str>) -> BinaryOp<&str> {
    match op {
        BinaryOp::Pipe(into) => BinaryOp::Pipe(into.map(pattern)),
        BinaryOp::Comma
        | BinaryOp::Alt
        | BinaryOp::Or
        | BinaryOp::And
        | BinaryOp::Math(_)
        | BinaryOp::Cmp(_)
        | BinaryOp::Assign
        | BinaryOp::Update
        | BinaryOp::UpdateMath(_)
        | BinaryOp::UpdateAlt => op,
    }
}

fn pattern(of: Pattern<&str>) -> Pattern<&str> {
    match of {
        Pattern::Var(_) => of,
        Pattern::Arr(items) => Pattern::Arr(items.into_iter().map(pattern).collect()),
        Pattern::Obj(fields) => {
            Pattern::Obj(fields.into_iter().map(|(name, value)| (term(name), pattern(value))).collect())
        }
    }
}

/// Whether a path gives several values, too.
fn places<'s>(path: Path<Term<&'s str>>) -> (Path<Term<&'s str>>, bool) {
    let mut generates = false;
    let mut part = |(part, optional): (Part<Term<&'s str>>, Opt)| {
        let part = match part {
            Part::Index(index) => Part::Index(term(index)),
            Part::Range(from, to) => {
                generates = true;
                Part::Range(from.map(term), to.map(term))
            }
        };
        (part, optional)
    };
    let path = Path(path.0.into_iter().map(&mut part).collect());
    (path, generates)
}

fn counter() -> Term<&'static str> {
    Term::Call(STEP, Vec::new())
}

fn counted(of: Term<&str>) -> Term<&str> {
    piped(of, counter())
}

fn piped<'s>(first: Term<&'s str>, then: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(Box::new(first), BinaryOp::Pipe(None), Box::new(then))
}
