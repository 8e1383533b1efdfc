// Two abbreviations.

/** @param {string} id @returns {any} the element */
export function at(id) {
  return document.getElementById(id);
}

/** @param {string} tag @param {object} properties @param {...(Node | string)} children */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
