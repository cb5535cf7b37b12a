# ü
FROM a
RUN Ã¼ \
  # ÿ
 b
