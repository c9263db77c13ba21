//! A deserialiser over the tree that remembers unknown keys and leaves out what failed before.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Visitor};

use super::nearest;
use super::tree::{Node, NodeValue};

type Place = (u64, u64);

/// Why deserialising stopped.
#[derive(Debug)]
pub(super) struct DeError {
    pub(super) place: Option<Place>,
    pub(super) message: String,
    pub(super) missing_field: bool,
}

impl DeError {
    /// Gives the error a place, unless an inner node did already.
    fn at(mut self, node: &Node) -> Self {
        self.place.get_or_insert((node.line, node.column));
        self
    }
}

impl fmt::Display for DeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DeError {}

impl de::Error for DeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string(), missing_field: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { place: None, message: format!("missing field `{field}`"), missing_field: true }
    }
}

/// One pass over the tree.
pub(super) struct Attempt<'a> {
    skipped: &'a [Place],
    unknown_keys: RefCell<Vec<(u64, u64, String)>>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(skipped: &'a [Place]) -> Self {
        Self { skipped, unknown_keys: RefCell::new(Vec::new()) }
    }

    pub(super) fn deserializer(&'a self, node: &'a Node) -> NodeDeserializer<'a> {
        NodeDeserializer { node, attempt: self }
    }

    pub(super) fn into_unknown_keys(self) -> Vec<(u64, u64, String)> {
        self.unknown_keys.into_inner()
    }

    fn is_skipped(&self, node: &Node) -> bool {
        self.skipped.contains(&(node.line, node.column))
    }
}

#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a> {
    node: &'a Node,
    attempt: &'a Attempt<'a>,
}

impl<'a> NodeDeserializer<'a> {
    fn child(self, node: &'a Node) -> Self {
        Self { node, attempt: self.attempt }
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match &self.node.value {
            NodeValue::Null => visitor.visit_unit(),
            NodeValue::Bool(value) => visitor.visit_bool(*value),
            NodeValue::Int(value) => visitor.visit_i64(*value),
            NodeValue::Float(value) => visitor.visit_f64(*value),
            NodeValue::Text(value) => visitor.visit_str(value),
            NodeValue::Seq(items) => visitor.visit_seq(Items { parent: self, rest: items.iter() }),
            NodeValue::Map(pairs) => {
                let kept: Vec<_> = pairs.iter().filter(|(_, value)| !self.attempt.is_skipped(value)).collect();
                visitor.visit_map(Pairs { parent: self, rest: kept.into_iter(), value: None })
            }
        }
    }
}

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.visit(visitor).map_err(|error| error.at(self.node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self.node.value {
            NodeValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self).map_err(|error| error.at(self.node)),
        }
    }

    /// Numbers and booleans are text where text is wanted: `version: 15`, `password: on`.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        let text = match &self.node.value {
            NodeValue::Bool(value) => value.to_string(),
            NodeValue::Int(value) => value.to_string(),
            NodeValue::Float(value) => value.to_string(),
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_string(text).map_err(|error: DeError| error.at(self.node))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(self.node))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        let result = match &self.node.value {
            NodeValue::Text(word) => {
                let word: StrDeserializer<'_, DeError> = word.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            _ => Err(de::Error::custom("expected a word")),
        };
        result.map_err(|error| error.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        let NodeValue::Map(pairs) = &self.node.value else {
            let error: DeError = de::Error::custom("expected a map of keys and values");
            return Err(error.at(self.node));
        };
        let mut known = Vec::new();
        for pair in pairs {
            match &pair.0.value {
                NodeValue::Text(name) if !fields.contains(&name.as_str()) => {
                    let message = unknown_key(name, fields);
                    self.attempt.unknown_keys.borrow_mut().push((pair.0.line, pair.0.column, message));
                }
                _ if self.attempt.is_skipped(&pair.1) => {}
                _ => known.push(pair),
            }
        }
        visitor
            .visit_map(Pairs { parent: self, rest: known.into_iter(), value: None })
            .map_err(|error| error.at(self.node))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map ignored_any
    }
}

fn unknown_key(name: &str, fields: &[&str]) -> String {
    match nearest(name, fields.iter().copied()) {
        Some(right) => format!("unknown key {name:?}; did you mean {right:?}?"),
        None if fields.len() <= 12 => format!("unknown key {name:?}; known are {}", fields.join(", ")),
        None => format!("unknown key {name:?}"),
    }
}

struct Items<'a> {
    parent: NodeDeserializer<'a>,
    rest: std::slice::Iter<'a, Node>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = DeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DeError> {
        let attempt = self.parent.attempt;
        let Some(item) = self.rest.by_ref().find(|item| !attempt.is_skipped(item)) else { return Ok(None) };
        seed.deserialize(self.parent.child(item)).map(Some).map_err(|error| error.at(item))
    }
}

struct Pairs<'a> {
    parent: NodeDeserializer<'a>,
    rest: std::vec::IntoIter<&'a (Node, Node)>,
    value: Option<&'a Node>,
}

impl<'de> de::MapAccess<'de> for Pairs<'_> {
    type Error = DeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DeError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(self.parent.child(key)).map(Some).map_err(|error| error.at(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DeError> {
        let Some(value) = self.value.take() else { return Err(de::Error::custom("value without a key")) };
        seed.deserialize(self.parent.child(value)).map_err(|error| error.at(value))
    }
}
