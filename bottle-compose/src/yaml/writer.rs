//! The way from a value to YAML's text, without a tree in between: a document is written in tens of microseconds.

use std::fmt::{self, Display, Write as _};

use serde::ser::{self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple};

use super::scalar::{Dollars, write_string};

/// Where the writer stands, and so what comes before the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the beginning of the document.
    Start,
    /// Where a key belongs.
    Key,
    /// Behind a key's colon.
    Value,
    /// Behind a list's hyphen.
    Item,
}

/// Writes one value.
pub(super) struct Writer<'a> {
    out: &'a mut String,
    dollars: Dollars,
    place: Place,
    /// How far the lines of a nested value are indented.
    depth: usize,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(out: &'a mut String, dollars: Dollars) -> Self {
        Self { out, dollars, place: Place::Start, depth: 0 }
    }

    /// A writer for a part of the value.
    const fn inner(&mut self, place: Place, depth: usize) -> Writer<'_> {
        Writer { out: self.out, dollars: self.dollars, place, depth }
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }

    /// What has a form on one line.
    #[expect(clippy::unnecessary_wraps, reason = "it ends most of the serializer's methods")]
    fn scalar(self, write: impl FnOnce(&mut String)) -> Written {
        if self.place == Place::Key {
            write(self.out);
            return Ok(());
        }
        if self.place != Place::Start {
            self.out.push(' ');
        }
        write(self.out);
        self.out.push('\n');
        Ok(())
    }

    fn display(self, value: impl Display) -> Written {
        self.scalar(|out| {
            // A string takes everything that is written to it.
            let _ = write!(out, "{value}");
        })
    }
}

type Written = Result<(), Unwritable>;

/// A value that has no form here, such as bytes.
#[derive(Debug)]
pub(super) struct Unwritable;

impl Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value has no form in a document")
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// Writes a list or a mapping, line by line.
pub(super) struct Nested<'a> {
    writer: Writer<'a>,
    empty: bool,
}

impl Nested<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Written {
        if self.empty && matches!(self.writer.place, Place::Value | Place::Item) {
            self.writer.out.push('\n');
        }
        self.empty = false;
        self.writer.indent();
        self.writer.out.push('-');
        let depth = self.writer.depth + 1;
        item.serialize(self.writer.inner(Place::Item, depth))
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        match self.writer.place {
            // The first key of a list's item stands behind its hyphen.
            Place::Item if self.empty => self.writer.out.push(' '),
            Place::Value if self.empty => {
                self.writer.out.push('\n');
                self.writer.indent();
            }
            _ => self.writer.indent(),
        }
        self.empty = false;
        let depth = self.writer.depth;
        key.serialize(self.writer.inner(Place::Key, depth))?;
        self.writer.out.push(':');
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        let depth = self.writer.depth + 1;
        value.serialize(self.writer.inner(Place::Value, depth))
    }

    fn finish(self, nothing: &str) -> Written {
        if self.empty { self.writer.scalar(|out| out.push_str(nothing)) } else { Ok(()) }
    }
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Nested<'a>;
    type SerializeTuple = Nested<'a>;
    type SerializeTupleStruct = Impossible<(), Unwritable>;
    type SerializeTupleVariant = Impossible<(), Unwritable>;
    type SerializeMap = Nested<'a>;
    type SerializeStruct = Nested<'a>;
    type SerializeStructVariant = Impossible<(), Unwritable>;

    fn serialize_bool(self, truth: bool) -> Written {
        self.display(truth)
    }

    fn serialize_i8(self, number: i8) -> Written {
        self.display(number)
    }

    fn serialize_i16(self, number: i16) -> Written {
        self.display(number)
    }

    fn serialize_i32(self, number: i32) -> Written {
        self.display(number)
    }

    fn serialize_i64(self, number: i64) -> Written {
        self.display(number)
    }

    fn serialize_u8(self, number: u8) -> Written {
        self.display(number)
    }

    fn serialize_u16(self, number: u16) -> Written {
        self.display(number)
    }

    fn serialize_u32(self, number: u32) -> Written {
        self.display(number)
    }

    fn serialize_u64(self, number: u64) -> Written {
        self.display(number)
    }

    fn serialize_f32(self, number: f32) -> Written {
        self.serialize_f64(number.into())
    }

    /// With a point, so that every reader takes it for what it is; what is no finite number has no form.
    fn serialize_f64(self, number: f64) -> Written {
        if number.is_finite() { self.display(format_args!("{number:?}")) } else { Err(Unwritable) }
    }

    fn serialize_char(self, c: char) -> Written {
        self.serialize_str(c.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Written {
        // Compose interpolates values, not keys.
        let dollars = if self.place == Place::Key { Dollars::Kept } else { self.dollars };
        self.scalar(|out| write_string(out, text, dollars))
    }

    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(Unwritable)
    }

    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    /// Nothing, which is null in every version of YAML.
    fn serialize_unit(self) -> Written {
        self.out.push('\n');
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let mut map = self.serialize_map(Some(1))?;
        map.serialize_entry(variant, value)?;
        SerializeMap::end(map)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Nested<'a>, Unwritable> {
        Ok(Nested { writer: self, empty: true })
    }

    fn serialize_tuple(self, _: usize) -> Result<Nested<'a>, Unwritable> {
        Ok(Nested { writer: self, empty: true })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Nested<'a>, Unwritable> {
        Ok(Nested { writer: self, empty: true })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Nested<'a>, Unwritable> {
        Ok(Nested { writer: self, empty: true })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritable> {
        Err(Unwritable)
    }
}

impl SerializeSeq for Nested<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Written {
        self.item(item)
    }

    fn end(self) -> Written {
        self.finish("[]")
    }
}

impl SerializeTuple for Nested<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Written {
        self.item(item)
    }

    fn end(self) -> Written {
        self.finish("[]")
    }
}

impl SerializeMap for Nested<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.value(value)
    }

    fn end(self) -> Written {
        self.finish("{}")
    }
}

impl SerializeStruct for Nested<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Written {
        self.key(key)?;
        self.value(value)
    }

    fn end(self) -> Written {
        self.finish("{}")
    }
}
