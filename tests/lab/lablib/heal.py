def catalogue(): return ""
