//! JSON schemas before they are compiled: what would cost the grammar engine more than a request may cost is
//! refused, by size, by depth and by the arithmetic of `multipleOf`.
//!
//! The engine's own limits bound what it builds, but not how deep it recurses while it does, nor the time for the
//! remainders of a large divisor.

use serde_json::Value;
use std::collections::BTreeSet;

/// Names of one object, required ones included: the engine recurses over them.
const MOST_NAMES: usize = 1000;

/// Definitions that are referred to: each may recurse into the next.
const MOST_REFERENCES: usize = 256;

/// All values of a schema.
const MOST_VALUES: usize = 10_000;

/// The digits of a divisor without its point, or the product of all those of a schema that combines some: the engine
/// keeps a state for each remainder.
const LARGEST_DIVISOR: u64 = 10_000;

/// What has been seen of a schema.
#[derive(Debug, Default)]
struct Seen<'a> {
    values: usize,
    references: BTreeSet<&'a str>,
    divisors: BTreeSet<u64>,
    /// Whether one value may have to follow several parts of the schema.
    combines: bool,
}

/// Refuses a schema that would cost too much.
///
/// # Errors
/// With the rule that it breaks, in words for a person.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut seen = Seen::default();
    // Not by recursion, which is what is to be bounded.
    let mut rest = vec![schema];
    while let Some(value) = rest.pop() {
        seen.values += 1;
        match value {
            Value::Array(values) => rest.extend(values),
            Value::Object(fields) => {
                for (name, field) in fields {
                    seen.field(name, field)?;
                    rest.push(field);
                }
            }
            _ => {}
        }
        if seen.values > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values"));
        }
    }
    seen.judge()
}

impl<'a> Seen<'a> {
    fn field(&mut self, name: &str, field: &'a Value) -> Result<(), String> {
        let names = match field {
            Value::Array(names) if name == "required" => names.len(),
            Value::Object(names) if name == "properties" => names.len(),
            _ => 0,
        };
        if names > MOST_NAMES {
            return Err(format!("`{name}` has {names} names, not at most {MOST_NAMES}"));
        }
        match (name, field) {
            ("$ref", Value::String(target)) => {
                self.references.insert(target);
                self.combines = true;
            }
            ("allOf", Value::Array(parts)) => self.combines |= parts.len() > 1,
            ("multipleOf", Value::Number(number)) => {
                // 0.025 has the remainders of 25, and so has 2.5e-2.
                let text = number.to_string();
                let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
                let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
                self.divisors.insert(digits.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        if self.references.len() > MOST_REFERENCES {
            let count = self.references.len();
            return Err(format!("it refers to {count} definitions, not at most {MOST_REFERENCES}"));
        }
        let divisors = self.divisors.iter().copied();
        let worst = match self.combines {
            true => {
                divisors.fold(1, |product: u64, divisor| product.saturating_mul(divisor.max(1)))
            }
            false => divisors.max().unwrap_or(1),
        };
        if worst > LARGEST_DIVISOR {
            let all =
                if self.divisors.len() > 1 && self.combines { ", taken together" } else { "" };
            return Err(format!(
                "`multipleOf` has too many digits{all}: at most {LARGEST_DIVISOR}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> String {
        check(schema).unwrap_err()
    }

    #[test]
    fn what_people_write_is_taken() {
        let price = json!({ "type": "number", "multipleOf": 0.01 });
        let node = json!({ "properties": { "next": { "$ref": "#/$defs/node" }, "price": price } });
        let schema = json!({
            "$defs": { "node": node }, "$ref": "#/$defs/node",
            "allOf": [{ "multipleOf": 5 }, { "multipleOf": 12 }],
        });
        assert_eq!(check(&schema), Ok(()));
        // A property of that name is none of its own.
        assert_eq!(check(&json!({ "properties": { "required": { "type": "array" } } })), Ok(()));
    }

    #[test]
    fn what_costs_too_much_is_refused_by_its_rule() {
        let names: Vec<String> = (0..8000).map(|n| n.to_string()).collect();
        assert!(refused(&json!({ "type": "object", "required": names })).contains("8000 names"));
        let chain =
            (0..1000).map(|n| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", n + 1) })));
        let chain = json!({ "$defs": chain.collect::<serde_json::Map<_, _>>() });
        assert!(refused(&chain).contains("1000 definitions"));
        assert!(refused(&json!({ "enum": vec![1; 20_000] })).contains("values"));
        assert!(refused(&json!({ "multipleOf": 999_983 })).contains("multipleOf"));
        assert!(refused(&json!({ "multipleOf": 0.123_456 })).contains("multipleOf"));
        let several = [101, 103, 107].map(|divisor| json!({ "multipleOf": divisor }));
        assert_eq!(check(&json!({ "anyOf": several })), Ok(()));
        assert!(refused(&json!({ "allOf": several })).contains("together"));
    }
}
