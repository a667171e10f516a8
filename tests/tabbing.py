"""A page by keyboard alone: every control is reached with Tab, its focus is seen, and Tab leaves the page again."""

from typing import Any

ELEMENTS = """() => {
  const groups = new Set();
  return [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')].filter((e) => {
    if (e.disabled || e.tabIndex < 0 || !e.checkVisibility({ visibilityProperty: true })) return false;
    if (e.type !== 'radio') return true;
    if (groups.has(e.name)) return false;
    groups.add(e.name);
    return true;
  }).length;
}"""
"""The number of controls; the buttons of a radio group are one."""

FOCUS = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const controls = 'a[href], button, input, select, textarea, summary, [tabindex]';
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  const x = Math.min(Math.max(box.left + box.width / 2, 0), innerWidth - 1);
  const y = Math.min(Math.max(box.top + box.height / 2, 0), innerHeight - 1);
  const top = document.elementFromPoint(x, y);
  return {
    name: e.outerHTML.slice(0, 100),
    isControl: e.matches(controls),
    isOutlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
    isInView: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    isCovered: !(e.contains(top) || top?.contains(e) || [...(e.labels ?? [])].some((l) => l.contains(top))),
  };
}"""
"""The element that has the focus: whether it is seen."""


def reached_by_tab(page: Any) -> list[str]:
    """Press Tab from the start of the page to its end; return what had the focus.

    Each control must be reached once, within the window, outlined and not covered.
    """
    total = page.evaluate(ELEMENTS)
    assert total > 0
    reached: list[str] = []
    controls = 0
    for _ in range(2 * total + 20):  # an area that scrolls has the focus too
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus is None:
            break
        assert focus["isOutlined"], focus
        assert focus["isInView"], focus
        assert not focus["isCovered"], focus
        reached.append(focus["name"])
        controls += focus["isControl"]
    else:
        raise AssertionError(f"Tab does not leave the page: {reached[-3:]}")
    assert controls == total
    return reached
