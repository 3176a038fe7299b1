from langchain_core.messages import AIMessage

from langchain_eft.engine.progress import silent
from langchain_eft.teaching.sources.description import ChatTeacher, describe_lesson


class Counting(ChatTeacher):
    """Counts what it is asked, and answers with line breaks of all kinds."""

    asked = 0

    def __init__(self):
        pass

    def answer(self, asked, progress):
        self.asked += len(asked)
        return [AIMessage(f"{question}\u2028So\x85it is.") for question in asked]


def test_an_answer_is_asked_for_once_whatever_breaks_its_lines(tmp_path):
    teacher = Counting()
    lessons = [
        describe_lesson("kind", teacher, tmp_path / "answers.jsonl", 0, silent, count=20) for _ in range(2)
    ]
    assert teacher.asked == 20
    assert lessons[0] == lessons[1]


def test_a_torn_line_is_asked_for_again_and_the_file_stays_readable(tmp_path):
    teacher, file = Counting(), tmp_path / "answers.jsonl"
    describe_lesson("kind", teacher, file, 0, silent, count=20)
    file.write_bytes(file.read_bytes()[:-5])
    for _ in range(2):
        describe_lesson("kind", teacher, file, 0, silent, count=20)
    assert teacher.asked == 21
