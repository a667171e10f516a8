// Small pieces of the page.
export const only = (id) => document.getElementById(id);

/** An element with properties, attributes (`aria-…`, `role`), and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const say = (text) => (only("status").textContent = text);

/** The most probable labels as bars; `truth` is the right one where it is known. */
export function bars(top, percent, truth) {
  return top.map(({ label, probability }, place) => {
    const bar = element("li", {}, element("span", { textContent: label, title: label }), element("span", { textContent: percent(probability) }));
    if (truth === undefined ? place === 0 : label === truth) bar.className = "right";
    else if (place === 0) bar.className = "wrong";
    bar.style.setProperty("--share", `${100 * probability}%`);
    return bar;
  });
}

/** One of a row of buttons is pressed. */
export function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}
