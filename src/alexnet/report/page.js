// The report is complete without this: it turns the threshold, marks the place in the contents, opens all for printing.
const dial = document.querySelector(".dial");
if (dial) {
  const { rows, positives, negatives } = JSON.parse(dial.querySelector("script").textContent);
  const input = dial.querySelector("input");
  const percent = (share) => (100 * share).toFixed(1) + "%";
  const set = (name, text) => (dial.querySelector(`[data-is=${name}]`).textContent = text);
  const turn = () => {
    const row = rows[input.value];
    const found = Math.round(row.recall * positives);
    const alarms = Math.round((row.false_positive_rate ?? 0) * negatives);
    set("threshold", row.threshold.toFixed(3));
    set("found", percent(row.recall));
    set("missed", `${positives - found} of ${positives}`);
    set("alarms", `${alarms} of ${negatives}`);
    set("precision", percent(row.precision));
    input.setAttribute("aria-valuetext", `threshold ${row.threshold.toFixed(3)}, finds ${percent(row.recall)}`);
  };
  dial.hidden = false;
  input.addEventListener("input", turn);
  turn();
}
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) {
        link.classList.toggle("here", id === entry.target.id);
        if (id === entry.target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  },
  { rootMargin: "-15% 0px -75% 0px" },
);
document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
