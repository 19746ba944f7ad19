//! JSON, of bytes and of MessagePack.

use crate::failure::Failure;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{Map, Number, Value};

/// Levels of nesting that are shown, as deep as JSON's own reader goes.
const DEPTH_MAX: usize = 128;

/// An object, to be filled field by field.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    pub(crate) fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Bytes: as text if they are UTF-8, else as base64, under a name that says so.
    pub(crate) fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.field(name, text),
            Err(_) => self.field(&format!("{name}_base64"), STANDARD.encode(bytes)),
        }
    }

    pub(crate) fn build(self) -> Value {
        Value::Object(self.0)
    }
}

/// MessagePack as JSON. What JSON has no word for is made text: keys that are no text as their
/// JSON, bytes as base64.
pub(crate) fn of_msgpack(mut bytes: &[u8]) -> Result<Value, Failure> {
    let failed = |why: String| Failure::Failed(format!("the value is no MessagePack: {why}"));
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH_MAX)
        .map_err(|error| failed(error.to_string()))?;
    match bytes.len() {
        0 => Ok(of_value(value)),
        more => Err(failed(format!("{more} bytes are behind its end"))),
    }
}

/// JSON as MessagePack.
pub(crate) fn to_msgpack(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::Usage(format!("the value is no JSON: {error}"));
    let value: Value = serde_json::from_slice(text).map_err(failed)?;
    let mut bytes = Vec::new();
    let written = rmpv::encode::write_value(&mut bytes, &to_value(value));
    written.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(bytes)
}

fn of_value(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => value.into(),
        rmpv::Value::Integer(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => value.into(),
            (None, value) => value.into(),
        },
        rmpv::Value::F32(value) => float(value.into()),
        rmpv::Value::F64(value) => float(value),
        rmpv::Value::String(value) => match value.into_str() {
            Some(text) => text.into(),
            None => Value::Null,
        },
        rmpv::Value::Binary(bytes) => STANDARD.encode(bytes).into(),
        rmpv::Value::Array(values) => values.into_iter().map(of_value).collect(),
        rmpv::Value::Map(pairs) => {
            let pairs = pairs.into_iter().map(|(key, value)| {
                let key = match of_value(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, of_value(value))
            });
            Value::Object(pairs.collect())
        }
        rmpv::Value::Ext(kind, bytes) => Object::new()
            .field("extension", kind)
            .field("base64", STANDARD.encode(bytes))
            .build(),
    }
}

/// JSON has no infinities, and nothing that is no number.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn to_value(value: Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => text.into(),
        Value::Array(values) => values.into_iter().map(to_value).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (name.into(), to_value(value)));
            rmpv::Value::Map(fields.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_through_messagepack_and_comes_back() {
        let text = r#"{"user":"Ada","cart":[7,-1,1.5,true,null],"z":18446744073709551615}"#;
        let bytes = to_msgpack(text.as_bytes()).unwrap();
        assert_eq!(of_msgpack(&bytes).unwrap().to_string(), text);
        assert!(to_msgpack(b"{").is_err());
    }

    #[test]
    fn what_json_has_no_word_for_is_told_all_the_same() {
        let told = |bytes: &[u8]| of_msgpack(bytes).map(|value| value.to_string());
        assert_eq!(told(b"\xc4\x02\xff\x00").unwrap(), r#""/wA=""#);
        assert_eq!(told(b"\x81\x01\xc0").unwrap(), r#"{"1":null}"#);
        assert_eq!(
            told(b"\xd4\x05a").unwrap(),
            r#"{"extension":5,"base64":"YQ=="}"#
        );
        assert!(told(b"").is_err() && told(b"\x01\x02").is_err() && told(b"\xdd").is_err());
        assert!(told(&[0x91; 5000]).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_have_a_name_that_says_so() {
        let object = Object::new().bytes("a", b"text").bytes("b", b"\xff");
        assert_eq!(
            object.build().to_string(),
            r#"{"a":"text","b_base64":"/w=="}"#
        );
    }
}
