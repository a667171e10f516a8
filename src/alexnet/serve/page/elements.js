// Helpers for the elements of the page.
export const byId = (id) => document.getElementById(id);

/** Creates an element with properties, attributes (`aria-…`, `role`) and children. */
export function element(name, properties = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in created && !key.startsWith("aria")) created[key] = value;
    else created.setAttribute(key, value);
  }
  created.append(...children);
  return created;
}

/** Announces text to screen readers. */
export const announce = (message) => (byId("status").textContent = message);

/** The most probable classes as bars; `truth` is the true class where it is known. */
export function probabilityBars(top, percent, truth) {
  return top.map(({ label, probability }, rank) => {
    const bar = element("li", {}, element("span", { textContent: label, title: label }), element("span", { textContent: percent(probability) }));
    if (truth === undefined ? rank === 0 : label === truth) bar.className = "right";
    else if (rank === 0) bar.className = "wrong";
    bar.style.setProperty("--share", `${100 * probability}%`);
    return bar;
  });
}

/** Presses one of a group of buttons. */
export function press(buttons, pressed) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
}
