// The report is complete without this script: it drives the threshold slider, highlights the current section in the
// contents, and opens all details for printing.
const slider = document.querySelector(".slider");
if (slider) {
  const { rows, positives, negatives } = JSON.parse(slider.querySelector("script").textContent);
  const input = slider.querySelector("input");
  const percent = (share) => (100 * share).toFixed(1) + "%";
  const set = (name, text) => (slider.querySelector(`[data-value=${name}]`).textContent = text);
  const update = () => {
    const row = rows[input.value];
    const truePositives = Math.round(row.recall * positives);
    const falsePositives = Math.round((row.false_positive_rate ?? 0) * negatives);
    set("threshold", row.threshold.toFixed(3));
    set("recall", percent(row.recall));
    set("missed", `${positives - truePositives} of ${positives}`);
    set("false-positives", `${falsePositives} of ${negatives}`);
    set("precision", percent(row.precision));
    input.setAttribute("aria-valuetext", `threshold ${row.threshold.toFixed(3)}, recall ${percent(row.recall)}`);
  };
  slider.hidden = false;
  input.addEventListener("input", update);
  update();
}
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
const observer = new IntersectionObserver(
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
document.querySelectorAll("main > section").forEach((section) => observer.observe(section));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
