"""Unit tests of the router. Run with: python3 -B -m unittest discover tests"""

import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import router


def task(task_class: str = "summary", prompt_tokens: int = 100) -> router.Task:
    return router.read_task(json.dumps({"id": "t-1", "class": task_class, "prompt_tokens": prompt_tokens}))


class RouteTest(unittest.TestCase):
    def test_primary_answers_everything_while_it_is_up(self) -> None:
        self.assertEqual(router.route(task("payment"), primary_up=True).model, router.PRIMARY)

    def test_stand_in_takes_over_a_summary(self) -> None:
        self.assertEqual(router.route(task(), primary_up=False).model, router.STAND_IN)

    def test_long_prompt_waits(self) -> None:
        self.assertIsNone(router.route(task(prompt_tokens=32_001), primary_up=False).model)

    def test_long_payment_waits(self) -> None:
        decision = router.route(task("payment", prompt_tokens=32_001), primary_up=False)
        self.assertEqual(decision.reason, "class_excluded")


class ReadTaskTest(unittest.TestCase):
    def test_class_is_read_without_regard_to_case(self) -> None:
        self.assertEqual(task(" Summary ").task_class, task("summary").task_class)

    def test_line_that_is_not_json_is_refused(self) -> None:
        with self.assertRaises(router.InvalidTask):
            router.read_task("hello")


if __name__ == "__main__":
    unittest.main()
